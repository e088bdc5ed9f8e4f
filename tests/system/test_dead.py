"""`autoglm dead` and `client.dead` against a real server whose prompts fail for good."""

from __future__ import annotations

import getpass
import json
import os
import pty
import subprocess
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoglm import Client, Conflict, InvalidRequest, NotFound, TaskDead
from tests.system.real import AUTOGLM, INSTANT, Server, environment, fingerprint

pytestmark = pytest.mark.system

FAULTS = (*INSTANT, "--set", "engine.faults=true")
BAD = "please [[invalid]]"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, *FAULTS) as server:
        yield server


@asynccontextmanager
async def reached(server: Server) -> AsyncGenerator[Client]:
    """The operator's client."""
    async with Client(server.socket, None) as client:
        with anyio.fail_after(60):
            yield client


async def letter(client: Client, prompt: str = BAD, **options: Any) -> str:
    """The id of a task that has just died."""
    task = await client.submit(prompt, **options)
    with pytest.raises(TaskDead):
        await client.result(task.id)
    return task.id


def asked(server: Server, *arguments: str) -> str:
    """What a command that went well printed."""
    done = server.ask("dead", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def at_a_terminal(server: Server, typed: bytes, *arguments: str, **more: str) -> tuple[int, str]:
    """Exit code and all that was shown of `autoglm dead`, with a person at the keyboard."""
    keyboard, screen = pty.openpty()
    process = subprocess.Popen(
        [*AUTOGLM, "dead", *arguments, "--data-dir", str(server.folder)],
        stdin=screen,
        stdout=screen,
        stderr=screen,
        env=environment(**more),
    )
    os.close(screen)
    os.write(keyboard, typed)
    shown = b""
    try:
        while piece := os.read(keyboard, 65536):
            shown += piece
    except OSError:
        pass  # the other end is closed
    os.close(keyboard)
    return process.wait(30), shown.decode()


# ── the command ──────────────────────────────────────────────────────────────────────────────────


async def test_a_list_is_json_with_message_id_and_reason_or_safe_lines(server: Server) -> None:
    async with reached(server) as client:
        id = await letter(client, "one\x1b[2J\ntwo [[invalid]]", tenant="t")
        await letter(client, tenant="u")
        [line] = asked(server, "list", "--tenant", "t", "--json").splitlines()
        told = json.loads(line)
        assert (told["message_id"], told["tenant"], told["failures"]) == (id, "t", 1)
        assert told["text"] == "one\x1b[2J\ntwo [[invalid]]"
        assert asked(server, "list", "--reason", told["reason"]).count("\n") == 2
        assert asked(server, "list", "--reason", "nothing") == ""
        plain = asked(server, "list", "--tenant", "t")
        assert "\x1b" not in plain
        assert "one two [[invalid]]" in plain
        assert "MESSAGE" not in plain
        code, shown = at_a_terminal(server, b"", "list", NO_COLOR="1")
        assert code == 0
        assert shown.splitlines()[0].split() == [
            *("ID", "DIED", "TENANT", "REASON", "FAILS", "PROMPT", "ERROR"),
        ]


async def test_show_tells_what_was_asked_and_what_went_wrong(server: Server) -> None:
    async with reached(server) as client:
        id = await letter(client, max_tokens=7)
        text = asked(server, "show", id)
        assert BAD in text
        assert "attempt 1, " in text
        assert '"max_tokens":7' in text
        told = json.loads(asked(server, "show", id, "--json"))
        assert told["message_id"] == id
        assert told["content"]["sampling"] == {"max_tokens": 7}
        assert [each["code"] for each in told["errors"]] == [told["reason"]]


async def test_a_retried_letter_dies_again_and_a_discarded_one_is_gone_from_the_list(
    server: Server,
) -> None:
    async with reached(server) as client:
        id = await letter(client)
        assert asked(server, "retry", id) == f"{id} pending\n"
        with pytest.raises(TaskDead):
            await client.result(id)
        assert [each.attempt for each in (await client.dead.show(id)).errors] == [1, 2]
        assert json.loads(asked(server, "discard", id, "--json"))["state"] == "cancelled"
        assert asked(server, "list") == ""
        me = getpass.getuser()
        assert server.ask("events", "--task", id).stdout.count(f"  by {me}\n") == 2
        log = [json.loads(line) for line in server.ask("events", "--json").stdout.splitlines()]
        assert [(each["to"], each["by"]) for each in log if "by" in each] == [
            *(("pending", me), ("cancelled", me)),
        ]


async def test_an_edited_letter_is_answered(server: Server) -> None:
    async with reached(server) as client:
        id = await letter(client)
        assert asked(server, "edit", id, "--prompt", "fine", "--set", "max_tokens=3") == (
            f"{id} pending\n"
        )
        result = await client.result(id)
        assert result.text.startswith(fingerprint("fine"))
        assert result.usage.completion_tokens == 3


async def test_an_editor_opens_on_the_task_and_what_it_leaves_is_run(
    server: Server, tmp_path: Path
) -> None:
    async with reached(server) as client:
        id = await letter(client)
        editor = "sed -i s/...invalid../mended/"
        code, shown = at_a_terminal(server, b"", "edit", id, EDITOR=editor)
        assert (code, shown.strip()) == (0, f"{id} pending")
        assert (await client.result(id)).text.startswith(fingerprint("pleasemended"))
        other = await letter(client)
        assert at_a_terminal(server, b"", "edit", other, EDITOR="true")[0] == 2
        code, shown = at_a_terminal(server, b"", "edit", other, EDITOR="sed -i s/content/contents/")
        assert code == 2
        kept = Path(shown.rpartition(" is in ")[2].strip())
        assert '"contents"' in kept.read_text()
        kept.unlink()
        assert (await client.get(other)).state.value == "dead"


async def test_all_is_asked_for_at_a_terminal_and_done_at_once_elsewhere(server: Server) -> None:
    async with reached(server) as client:
        await letter(client)
        await letter(client, tenant="t")
        code, shown = at_a_terminal(server, b"n\n", "discard", "--all")
        assert code == 1
        assert "discard all dead letters? [y/N]" in shown
        assert len(await client.dead.list()) == 2
        code, shown = at_a_terminal(server, b"y\n", "discard", "--all", "--tenant", "t")
        assert "of tenant t?" in shown
        assert "1 discarded" in shown
        assert json.loads(asked(server, "discard", "--all", "--json")) == {"discarded": 1}
        assert await client.dead.list() == []


async def test_what_can_t_be_done_is_one_line_and_an_exit_code(server: Server) -> None:
    async with reached(server) as client:
        fine = (await client.submit("fine")).id
        await client.result(fine)
        dead = await letter(client)
        cases = (
            (3, "no task nothing", ("retry", "nothing")),
            (3, "no task nothing", ("show", "nothing")),
            (3, "succeeded", ("discard", fine)),
            (3, "no dead letter", ("edit", fine, "--prompt", "x")),
            (2, "either ids or --all", ("retry",)),
            (2, "go with --all", ("retry", "a", "--reason", "b")),
            (2, "max_tokens", ("edit", dead, "--set", "max_tokens=0")),
            (2, "no setting 'max_token'", ("edit", dead, "--set", "max_token=1")),
            (2, "no terminal", ("edit", dead)),
        )
        for code, words, arguments in cases:
            said = server.ask("dead", *arguments)
            assert said.returncode == code, said
            assert words in said.stderr
            assert said.stderr.count("\n") == 1


# ── the client ───────────────────────────────────────────────────────────────────────────────────


async def test_the_client_does_what_the_command_does(server: Server) -> None:
    async with reached(server) as client:
        first, second, third = [await letter(client, f"{n} {BAD}") for n in range(3)]
        found = await client.dead.list(limit=2)
        assert [each.message_id for each in found] == [third, second]
        assert (await client.dead.retry(first)).failures == 0
        with pytest.raises(TaskDead):
            await client.result(first)
        await client.dead.edit(second, "fine", seed=3)
        assert (await client.result(second)).text.startswith(fingerprint("fine"))
        with pytest.raises(Conflict, match="succeeded, no dead letter"):
            await client.dead.show(second)
        with pytest.raises(Conflict):
            await client.dead.discard(second)
        with pytest.raises(NotFound):
            await client.dead.retry("nothing")
        with pytest.raises(InvalidRequest, match="temperature"):
            await client.dead.edit(third, temperature=-1)
        assert await client.dead.discard_all() == 2
        with pytest.raises(Conflict, match="cancelled"):
            await client.dead.retry(third)


async def test_handing_in_the_original_again_after_an_edit_is_the_same_task(
    server: Server,
) -> None:
    async with reached(server) as client:
        id = await letter(client, key="k")
        await client.dead.edit(id, "fine")
        again = await client.submit(BAD, key="k")
        assert again.id == id
        with pytest.raises(Conflict):
            await client.submit("other", key="k")


# ── a job ────────────────────────────────────────────────────────────────────────────────────────


async def test_the_files_of_a_job_stay_and_are_written_anew_from_the_store_when_removed(
    server: Server, tmp_path: Path
) -> None:
    async with reached(server) as client:
        given, out, errors = (tmp_path / name for name in ("in.jsonl", "o.jsonl", "o.errors.jsonl"))
        given.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("a", BAD, "b")))
        run = ("run", str(given), "-o", str(out))
        assert server.ask(*run).returncode == 1
        before = (out.read_bytes(), errors.read_bytes())
        [dead] = await client.dead.list()
        assert dead.job
        await client.dead.edit(dead.message_id, "fine")
        assert (await client.result(dead.message_id)).text.startswith(fingerprint("fine"))
        assert server.ask(*run).returncode == 1, "what was told stands"
        assert (out.read_bytes(), errors.read_bytes()) == before
        out.unlink()
        errors.unlink()
        assert server.ask(*run).returncode == 0
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        texts = [each["response"]["body"]["choices"][0]["message"]["content"] for each in answers]
        wanted = ("a", "fine", "b")
        assert [text[:16] for text in texts] == [fingerprint(each) for each in wanted]
        states = [each.to_state.value async for each in client.events()]
        assert states.count("succeeded") == 3, "nothing was generated twice"
