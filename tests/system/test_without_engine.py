"""What queues do while no engine can serve: the real command, an engine that is dead and held."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoglm import Client, EngineUnavailable, InvalidRequest, Patience, TaskState
from autoglm.job import JobOptions, Progress, run_job
from tests.system.real import INSTANT, Server, fingerprint

pytestmark = pytest.mark.system

HELD_S = 600
"""The breaker's first delay, of which it keeps a twentieth at least: no test takes so long."""
ONE_DEATH_HOLDS = (
    *("--set", "supervision.engines.consecutive_max=0"),
    *("--set", f"supervision.engines.delay_first_s={HELD_S}"),
    *("--set", f"supervision.engines.delay_max_s={HELD_S}"),
)
AT_ONCE = (
    *("--set", "supervision.engines.delay_first_s=0.01"),
    *("--set", "supervision.engines.delay_max_s=0.01"),
)
"""For the next server: a breaker that was open is open no longer than this one could be."""


def queue(name: str, degrade: str, text: str | None = None) -> tuple[str, ...]:
    options = ("--set", f"queues.{name}.degrade={degrade}")
    return options if text is None else (*options, "--set", f"queues.{name}.default_text={text}")


async def engines_down(client: Client) -> None:
    """Kill every engine's host and wait until all breakers are open."""
    with anyio.fail_after(60):
        while True:
            engines = (await client.status()).engines
            if all(engine.breaker == "open" for engine in engines):
                return
            for engine in engines:
                if engine.breaker == "closed" and engine.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(engine.pid, signal.SIGKILL)
            await anyio.sleep(0.05)


@asynccontextmanager
async def no_engine(folder: Path, *options: str, ask: str = "hello") -> AsyncGenerator[Server]:
    """A server whose engine has answered `ask` in queue `normal` and is dead and held since."""
    with Server(folder, *INSTANT, *ONE_DEATH_HOLDS, *options) as server:
        async with Client(server.socket, None) as client:
            await client.result((await client.submit(ask)).id)
            await engines_down(client)
        yield server


def told(server: Server, *arguments: str) -> dict[str, Any]:
    asked = server.ask(*arguments, "--json")
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


async def test_a_submit_to_a_queue_that_fails_fast_says_at_once_when_to_try_again(
    tmp_path: Path,
) -> None:
    async with no_engine(tmp_path, *queue("normal", "fail_fast")) as server:
        for how in ((), ("--wait",), ("--stream",)):
            asked = server.ask("submit", "one", *how)
            assert (asked.returncode, asked.stdout.strip()) == (3, "")
            assert "queue 'normal' does not wait" in asked.stderr
            assert "Traceback" not in asked.stderr
        async with Client(server.socket) as client:
            with pytest.raises(EngineUnavailable) as refused:
                await client.submit("two")
            assert refused.value.retry_after is not None
            assert 0 < refused.value.retry_after <= HELD_S
            mapped = [each async for each in client.map(["three", "four"], return_errors=True)]
            assert [type(each) for each in mapped] == [EngineUnavailable] * 2
            waiting = await client.submit("five", queue="core")
            assert [task.id for task in await client.list(state="pending")] == [waiting.id]


async def test_a_run_waits_for_an_engine_and_goes_on(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    options, fail_fast = JobOptions(source, output), queue("normal", "fail_fast")
    done: list[Progress] = []
    async with no_engine(tmp_path / "data", *fail_fast) as server:
        with pytest.raises(EngineUnavailable):
            await run_job(options, server.socket, patience=Patience(engine_s=0))
        assert not output.exists()

        async def run() -> None:
            done.append(await run_job(options, server.socket))

        with contextlib.ExitStack() as stack, anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await anyio.wait_all_tasks_blocked()
                server.kill()
                stack.enter_context(Server(server.folder, *INSTANT, *AT_ONCE, *fail_fast))
    assert [(each.answered, each.failed) for each in done] == [(2, 0)]
    assert fingerprint("two") in output.read_text()


async def test_an_earlier_answer_is_given_again_and_says_so(tmp_path: Path) -> None:
    async with no_engine(tmp_path, *queue("normal", "cached")) as server:
        asked = server.ask("submit", "hello", "--wait")
        assert asked.stdout.startswith(fingerprint("hello"))
        assert "an earlier answer to the same request" in asked.stderr
        streamed = server.ask("submit", "hello", "--stream")
        assert streamed.stdout == asked.stdout
        assert "an earlier answer to the same request" in streamed.stderr
        task = told(server, "submit", "hello", "--wait")
        assert task["task"]["attempt"] == 0
        assert (task["task"]["degraded"], task["result"]["degraded"]) == ("cached", "cached")
        assert task["result"]["usage"]["completion_tokens"] == 0
        assert "degraded: cached" in server.ask("list").stdout
        assert "an earlier answer" in server.ask("get", task["id"]).stdout
        log = server.ask("events", "--task", task["id"], "--json").stdout.splitlines()
        assert [json.loads(each)["to"] for each in log] == ["pending", "succeeded"]
        async with Client(server.socket) as client:
            mapped = [each async for each in client.map(["hello", "hello"])]
            assert [each.degraded for each in mapped] == ["cached"] * 2
            chunks = [chunk async for chunk in client.stream("hello")]
            assert "".join(chunks) == mapped[0].text
            assert (await client.submit("new")).state is TaskState.PENDING
        async with Client(server.socket, "another") as client:
            assert (await client.submit("hello")).state is TaskState.PENDING


async def test_a_configured_text_is_the_answer_and_lines_of_a_file_say_so(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "one"}\n{"prompt": "two", "queue": "core"}\n')
    configured = queue("normal", "default", "later"), queue("core", "default", "much later")
    async with no_engine(tmp_path / "data", *configured[0], *configured[1]) as server:
        done = await run_job(JobOptions(source, output), server.socket)
    assert (done.answered, done.failed) == (2, 0)
    bodies = [json.loads(each)["response"]["body"] for each in output.read_text().splitlines()]
    assert [body["autoglm"] for body in bodies] == [{"degraded": "default"}] * 2
    said = [body["choices"][0]["message"]["content"] for body in bodies]
    assert said == ["later", "much later"]


async def test_what_was_accepted_before_waits_and_is_answered_by_an_engine(tmp_path: Path) -> None:
    default = queue("core", "default", "later")
    async with no_engine(tmp_path, *default) as server, Client(server.socket) as client:
        before = await client.submit("before")
        after = await client.submit("after", queue="core", after=[before.id])
        assert after.state is TaskState.BLOCKED
    with Server(tmp_path, *INSTANT, *AT_ONCE, *default) as server:
        async with Client(server.socket) as client:
            for task, prompt in ((before, "before"), (after, "after")):
                result = await client.result(task.id, timeout=60)
                assert result.text.startswith(fingerprint(prompt))
                assert result.degraded is None


async def test_a_queue_is_set_while_the_server_runs_and_stays_set_after_a_restart(
    tmp_path: Path,
) -> None:
    async with no_engine(tmp_path) as server:
        assert told(server, "queue", "set", "core", "--degrade", "cached")["source"] == "live"
        text = ("--degrade", "default", "--default-text", "later")
        assert (
            server.ask("queue", "set", "background", *text).stdout == "background default (live)\n"
        )
        assert server.ask("submit", "x", "--wait", "--queue", "background").stdout == "later\n"
        for _ in range(100):  # what was answered before is looked at meanwhile
            if told(server, "submit", "hello", "--queue", "core")["state"] == "succeeded":
                break
        assert told(server, "submit", "hello", "--queue", "core")["state"] == "succeeded"
        server.kill()
    with Server(tmp_path, *INSTANT, *ONE_DEATH_HOLDS) as server:
        modes = {each["name"]: each for each in told(server, "status")["queues"]}
        assert (modes["background"]["degrade"], modes["background"]["source"]) == (
            "default",
            "live",
        )
        assert modes["normal"]["source"] == "config"
        assert server.ask("submit", "x", "--wait", "--queue", "background").stdout == "later\n"
        assert told(server, "queue", "set", "background", "--reset")["degrade"] == "queue"
        assert told(server, "submit", "x", "--queue", "background")["state"] == "pending"
        server.stop()
        assert "queue background: degrade queue, by" in server.said


async def test_an_engine_that_loads_for_the_first_time_is_waited_for(tmp_path: Path) -> None:
    loading = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
    with Server(tmp_path, *loading, *queue("normal", "fail_fast")) as server:
        assert told(server, "submit", "hello")["state"] == "pending"


async def test_a_tenant_sets_no_queue_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket, "tenant") as client:
            with pytest.raises(InvalidRequest, match="for the operator"):
                await client.set_queue("core", "cached")
            assert [each.name for each in await client.queues()] == ["core", "normal", "background"]
        wrong = server.ask("submit", "hello", "--queue", "bakground")
        assert wrong.returncode == 2
        assert wrong.stderr == "autoglm: no queue 'bakground'; did you mean background?\n"
        assert server.ask("queue", "set", "core", "--degrade", "default").returncode == 2
