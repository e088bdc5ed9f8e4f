"""The Python client against the real server: what each call promises, and what it survives."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from autoglm import (
    Client,
    Conflict,
    InvalidRequest,
    NotFound,
    ServerNotRunning,
    Status,
    TaskCancelled,
    TaskDead,
    TaskExpired,
    TaskState,
)
from autoglm.retry import Patience
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=5")
FAULTS = (*INSTANT, "--set", "engine.faults=true")
NEVER_LOADED = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
SOON_S = 30.0
ENDLESS = "[[tokens:1000000]]"


def start_of_answer(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


@pytest.fixture
def instant(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, *INSTANT) as server:
        yield server


@asynccontextmanager
async def client_of(server: Server, tenant: str | None = "default") -> AsyncGenerator[Client]:
    with anyio.fail_after(60):
        async with Client(server.socket, tenant, patience=Patience(window_s=20)) as client:
            yield client


async def until_running(client: Client, id: str) -> None:
    with anyio.fail_after(SOON_S):
        while (await client.get(id)).state is not TaskState.RUNNING:
            pass


async def test_map_of_a_thousand_prompts_comes_in_their_order(instant: Server) -> None:
    prompts = [f"prompt {number}" for number in range(1000)]
    async with client_of(instant) as client:
        texts = [result.text async for result in client.map(prompts)]
    assert [text[:16] for text in texts] == [start_of_answer(prompt) for prompt in prompts]


async def test_map_as_they_end_brings_every_prompt_once(instant: Server) -> None:
    prompts = [f"prompt {number}" for number in range(1000)]
    async with client_of(instant) as client:
        texts = [result.text async for result in client.map(prompts, ordered=False)]
    assert sorted(text[:16] for text in texts) == sorted(map(start_of_answer, prompts))


async def test_map_draws_no_further_ahead_than_it_may(instant: Server) -> None:
    drawn = taken = most = 0

    def prompts() -> Iterator[str]:
        nonlocal drawn, most
        for number in range(200):
            drawn += 1
            most = max(most, drawn - taken)
            yield f"prompt {number}"

    async with client_of(instant) as client:
        async for _ in client.map(prompts(), in_flight=16):
            taken += 1
    assert drawn == taken == 200
    assert most <= 16 + 1


async def test_map_raises_in_the_place_of_the_prompt_that_died(tmp_path: Path) -> None:
    with Server(tmp_path, *FAULTS) as server:
        async with client_of(server) as client:
            prompts = ["one", "[[invalid]]", "three"]
            outcomes = [each async for each in client.map(prompts, return_errors=True)]
            assert [type(outcome).__name__ for outcome in outcomes] == [
                "Result",
                "TaskDead",
                "Result",
            ]
            results = client.map(prompts)
            assert (await anext(results)).text.startswith(start_of_answer("one"))
            with pytest.raises(TaskDead):
                await anext(results)


async def test_a_task_is_submitted_answered_got_and_listed(instant: Server) -> None:
    async with client_of(instant) as client:
        task = await client.submit("hello", priority=2, kind="greeting", max_tokens=7)
        result = await client.result(task.id, timeout=SOON_S)
        assert result.text.startswith(start_of_answer("hello"))
        assert result.usage.completion_tokens == 7
        found = await client.get(task.id)
        assert (found.state, found.priority, found.kind) == (TaskState.SUCCEEDED, 2, "greeting")
        assert await client.list(state="success") == [found]
        assert await client.list(state="failed") == []


async def test_list_goes_through_every_page_newest_first(instant: Server) -> None:
    async with client_of(instant) as client:
        results = [result async for result in client.map(str(n) for n in range(2500))]
        listed = await client.list()
        assert {task.id for task in listed} == {result.task.id for result in results}
        assert len(listed) == 2500
        assert await client.list(limit=1200) == listed[:1200]


async def test_the_log_of_a_task_tells_its_whole_life(instant: Server) -> None:
    async with client_of(instant) as client:
        first = await client.submit("one")
        await client.result(first.id)
        second = await client.submit("two")
        await client.result(second.id)
        events = [event async for event in client.events(second.id)]
        everything = [event.seq async for event in client.events()]
    states = [(event.from_state, event.to_state) for event in events]
    assert states == [(None, "pending"), ("pending", "running"), ("running", "succeeded")]
    assert everything == sorted(everything)
    assert len(everything) == 6


async def test_status_counts_what_was_done(instant: Server) -> None:
    async with client_of(instant) as client:
        assert len([result async for result in client.map(map(str, range(50)))]) == 50
        status = await client.status()
    assert status.tasks["succeeded"] == 50
    assert status.batches.count >= 1


async def test_the_chunks_of_a_stream_join_to_the_answer(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client:
            chunks = [chunk async for chunk in client.stream("[[tokens:60]]")]
            [task] = await client.list()
            result = await client.result(task.id)
    assert "".join(chunks) == result.text
    assert len(chunks) > 3


async def test_a_second_reader_that_comes_late_gets_the_whole_answer(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client:
            first = client.stream("[[tokens:200]]")
            await anext(first)
            [task] = await client.list()
            late = [chunk async for chunk in client.follow(task.id)]
            assert "".join(late) == (await client.result(task.id)).text


async def test_the_same_key_is_the_same_task_and_other_content_a_conflict(instant: Server) -> None:
    async with client_of(instant) as client:
        task = await client.submit("hello", key="mine")
        assert (await client.submit("hello", key="mine", priority=1)).id == task.id
        with pytest.raises(Conflict, match="mine"):
            await client.submit("goodbye", key="mine")
        shared = [result.task.id async for result in client.map(["hello"] * 5, key="mine")]
        assert shared == [task.id] * 5


async def test_an_unknown_id_is_not_found_by_every_call(instant: Server) -> None:
    async with client_of(instant) as client:
        for call in (client.get, client.result, client.cancel):
            with pytest.raises(NotFound, match="no task nowhere"):
                await call("nowhere")
        with pytest.raises(NotFound):
            async for _ in client.follow("nowhere"):
                pass
        assert (await client.cancel_many(["nowhere"])).unknown == ("nowhere",)


async def test_cancel_reaches_a_running_task_and_frees_its_slot(tmp_path: Path) -> None:
    def running(status: Status) -> int:
        return status.engines[0].running

    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client:
            task = await client.submit(ENDLESS)
            await until_running(client, task.id)
            assert (await client.cancel(task.id)).state is TaskState.CANCELLED
            with pytest.raises(TaskCancelled):
                await client.result(task.id)
            with anyio.fail_after(SOON_S):
                while running(await client.status()):
                    pass


async def test_a_task_waits_for_those_it_comes_after(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client:
            first = await client.submit("[[tokens:40]]")
            second = await client.submit("second", after=[first.id], priority=0)
            assert second.state is TaskState.BLOCKED
            result = await client.result(second.id)
            earlier = await client.get(first.id)
    assert earlier.finished_at is not None
    assert result.task.started_at is not None
    assert earlier.finished_at <= result.task.started_at


async def test_a_task_whose_forerunner_was_cancelled_is_cancelled(tmp_path: Path) -> None:
    with Server(tmp_path, *NEVER_LOADED) as server:
        async with client_of(server) as client:
            first = await client.submit("first")
            second = await client.submit("second", after=[first.id])
            await client.cancel(first.id)
            with pytest.raises(TaskCancelled, match=first.id):
                await client.result(second.id)


async def test_a_task_after_one_that_does_not_exist_is_refused(instant: Server) -> None:
    async with client_of(instant) as client:
        with pytest.raises((NotFound, InvalidRequest), match="nowhere"):
            await client.submit("hello", after=["nowhere"])
        assert await client.list() == []


async def test_a_task_that_did_not_run_in_time_expires(tmp_path: Path) -> None:
    with Server(tmp_path, *NEVER_LOADED) as server:
        async with client_of(server) as client:
            task = await client.submit("hello", expires=0.2)
            with pytest.raises(TaskExpired):
                await client.result(task.id, timeout=SOON_S)


async def test_result_gives_up_waiting_when_it_was_told_to(tmp_path: Path) -> None:
    with Server(tmp_path, *NEVER_LOADED) as server:
        async with client_of(server) as client:
            task = await client.submit("hello")
            with pytest.raises(TimeoutError):
                await client.result(task.id, timeout=0.1)
            assert (await client.get(task.id)).state is TaskState.PENDING


async def test_nobody_at_the_socket_is_told_at_once(tmp_path: Path) -> None:
    with anyio.fail_after(2), pytest.raises(ServerNotRunning, match="autoglm serve"):
        async with Client(tmp_path / "autoglm.sock"):
            pass


# ── the server dies ───────────────────────────────────────────────────────────────────────────


def bring_back(server: Server) -> None:
    server.kill()
    server.start()


async def test_result_outlasts_a_killed_and_restarted_server(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client:
            task = await client.submit("[[tokens:100]]")
            await until_running(client, task.id)
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, bring_back, server)
                result = await client.result(task.id)
                assert result.text.startswith(start_of_answer("[[tokens:100]]"))
                assert (result.task.attempt, result.task.failures) == (2, 0)


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_outlasts_a_killed_and_restarted_server(tmp_path: Path, ordered: bool) -> None:
    prompts = [f"prompt {number}" for number in range(1000)]
    texts: list[str] = []
    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client, anyio.create_task_group() as group:
            async for result in client.map(prompts, ordered=ordered):
                texts.append(result.text[:16])
                if len(texts) == 200:
                    group.start_soon(anyio.to_thread.run_sync, bring_back, server)
            assert len(await client.list()) == len(prompts)
    expected = list(map(start_of_answer, prompts))
    assert (texts if ordered else sorted(texts)) == (expected if ordered else sorted(expected))


async def test_a_stream_outlasts_a_killed_and_restarted_server(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        async with client_of(server) as client, anyio.create_task_group() as group:
            text = ""
            async for chunk in client.stream("[[tokens:100]]"):
                if not text:
                    group.start_soon(anyio.to_thread.run_sync, bring_back, server)
                text = chunk.text if chunk.reset else text + chunk
            [task] = await client.list()
            assert text == (await client.result(task.id)).text
