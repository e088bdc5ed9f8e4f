"""A client in another language, on the wire protocol alone: examples/node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from autoglm import Client
from autoglm.errors import Conflict
from autoglm.types import Sampling
from tests.system.real import INSTANT, Server, environment, fingerprint, succeeded
from tests.system.test_without_engine import no_engine, queue

EXAMPLE = Path(__file__).parents[2] / "examples" / "node" / "autoglm.mjs"
FAULTS = (*INSTANT, "--set", "engine.faults=true")
SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=5")
ODD = "Größe, 大きさ, 🙂,\u2028\0 and \\ \" '"
NAME = ODD.replace("\0", "")
TIMEOUT_S = 90
NODE = shutil.which("node") or ""

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not NODE, reason="there is no node on this machine"),
]


def node(server: Server, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [NODE, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(AUTOGLM_SOCKET=str(server.socket)),
    )


def said(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    return text


def program(server: Server, body: str, **given: Any) -> subprocess.Popen[str]:
    """A module that has a `client`, prints with `tell` and knows `given`."""
    source = f"""
        import {{ Client, mintId }} from {json.dumps(EXAMPLE.as_uri())};
        const client = new Client(), tell = (value) => console.log(JSON.stringify(value));
        const given = {json.dumps(given)};
        {body}
    """
    return node(server, "--input-type=module", "--eval", source)


def results(server: Server, body: str, **given: Any) -> list[Any]:
    lines = said(program(server, body, **given)).removesuffix("\n").split("\n")
    return [json.loads(line) for line in lines]


def test_the_example_is_short_enough_to_read() -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 100


def test_the_commands_of_the_example_submit_wait_and_stream(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        id = said(node(server, str(EXAMPLE), "submit", ODD.replace("\0", ""))).strip()
        answer = said(node(server, str(EXAMPLE), "result", id))
        assert answer.startswith(fingerprint(ODD.replace("\0", "")))
        assert said(node(server, str(EXAMPLE), "stream", "hello")).startswith(fingerprint("hello"))


def test_a_prompt_and_a_name_in_any_script_arrive_as_they_were_sent(tmp_path: Path) -> None:
    body = """
        const task = await client.submit(given.odd, { key: given.name });
        tell([task.key, await client.result(task.id)]);
    """
    with Server(tmp_path, *INSTANT) as server:
        [[key, text]] = results(server, body, odd=ODD, name=NAME)
    assert key == NAME
    assert text.startswith(fingerprint(ODD))


async def test_an_answer_in_any_script_arrives_as_it_was_recorded(tmp_path: Path) -> None:
    body = "tell(await client.result((await client.submit('what?')).id));"
    async with no_engine(
        tmp_path, *queue("normal", "default", json.dumps(ODD, ensure_ascii=False))
    ) as server:
        assert results(server, body) == [ODD]


async def test_a_seed_beyond_what_a_double_holds_arrives_exactly(tmp_path: Path) -> None:
    body = """
        const seed = 2n ** 63n - 1n;
        tell((await client.submit("dice", { key: "dice", sampling: { seed } })).id);
    """
    with Server(tmp_path, *INSTANT) as server:
        [id] = results(server, body)
        async with Client(server.socket) as client:
            same = await client.submit("dice", key="dice", sampling=Sampling(seed=2**63 - 1))
            assert same.id == id
            with pytest.raises(Conflict):
                await client.submit("dice", key="dice", sampling=Sampling(seed=2**63 - 2))


def test_refusals_and_ends_without_an_answer_come_with_their_codes(tmp_path: Path) -> None:
    body = """
        const fails = (call) => call().catch(({ code, message }) => tell([code, message]));
        await fails(() => client.submit("x", { priority: 12 }));
        await fails(() => client.submit("x", { priority: "high" }));
        await fails(() => client.submit("x\\ud800"));
        await fails(() => client.result("0".repeat(26)));
        const { id } = await client.submit("[[invalid]]");
        await fails(() => client.result(id));
    """
    with Server(tmp_path, *FAULTS) as server:
        range_, kind, unicode, unknown, dead = results(server, body)
    assert range_ == ["invalid_request", "priority 12: from 0 (most urgent) to 9 (least)"]
    assert kind[0] == "invalid_request"
    assert "$.tasks[0].priority" in kind[1]
    assert unicode == ["invalid_request", "a text of the request is not valid Unicode"]
    assert unknown[0] == "not_found"
    assert dead[0] == "dead"


def test_a_submission_under_one_id_survives_the_server_and_runs_to_one_answer(
    tmp_path: Path,
) -> None:
    body = """
        const id = mintId(), text = "long [[tokens:300]]";
        await client.submit(text, { id });
        tell(id);
        let shown = "";
        for await (const piece of client.stream(text, { id }))
            shown = piece.reset ? piece.text : shown + piece.text;
        tell([shown, await client.result((await client.submit(text, { id })).id)]);
    """
    with Server(tmp_path, *SLOW) as server:
        process = program(server, body)
        assert process.stdout is not None
        id = json.loads(process.stdout.readline())
        server.kill()
        server.start()
        shown, answer = json.loads(said(process))
        assert shown == answer
        assert answer.startswith(fingerprint("long [[tokens:300]]"))
        assert dict(succeeded(server)) == {id: 1}


def test_a_stream_comes_in_pieces(tmp_path: Path) -> None:
    body = """
        const pieces = [];
        for await (const piece of client.stream("[[tokens:100]]")) pieces.push(piece);
        tell(pieces);
    """
    with Server(tmp_path, *SLOW) as server:
        [pieces] = results(server, body)
    assert len(pieces) > 1
    assert not any(piece["reset"] for piece in pieces)
