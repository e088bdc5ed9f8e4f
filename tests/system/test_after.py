"""Tasks that come after others, against the real command: graphs, choices, and what is urgent."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from autoglm import (
    Client,
    Conflict,
    InvalidRequest,
    NotFound,
    TaskCancelled,
    TaskState,
    graphclient,
)
from autoglm.retry import Patience
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

OTHERS = 30
NEVER_LOADED = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
ONE_SLOT = (*INSTANT, "--set", "engine.max_num_seqs=1", "--set", "scheduler.policy=priority")


@pytest.fixture
def parked(tmp_path: Path) -> Iterator[Server]:
    """Nothing runs here: its engine loads for ever."""
    with Server(tmp_path, *NEVER_LOADED) as server:
        yield server


@asynccontextmanager
async def client_of(server: Server) -> AsyncGenerator[Client]:
    with anyio.fail_after(60):
        async with Client(server.socket, patience=Patience(window_s=20)) as client:
            yield client


def submit(server: Server, *arguments: str) -> str:
    done = server.ask("submit", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def get(server: Server, id: str) -> dict[str, Any]:
    return json.loads(server.ask("get", id, "--json").stdout)["task"]


def test_the_command_lets_a_task_run_after_a_failure_or_cancels_it(parked: Server) -> None:
    first = submit(parked, "first")
    plain = submit(parked, "second", "--after", first)
    kept = submit(parked, "third", "--after", first, plain, "--after-failure", "run")
    shown = get(parked, kept)
    assert (shown["state"], shown["after_failure"]) == ("blocked", "run")
    assert shown["waits_for"] == [first, plain]
    assert f"waits for {first}, {plain}" in parked.ask("get", kept).stdout
    assert parked.ask("cancel", first).returncode == 0
    assert [get(parked, id)["state"] for id in (first, plain, kept)] == [
        *("cancelled", "cancelled", "pending")
    ]
    late = parked.ask("submit", "late", "--after", first)
    assert (late.returncode, "cancelled" in late.stderr) == (3, True)
    late_run = submit(parked, "late", "--after", first, "--after-failure", "run")
    assert get(parked, late_run)["state"] == "pending"


def test_get_shows_whose_urgency_a_task_has_and_what_was_asked_for(parked: Server) -> None:
    first = submit(parked, "first", "--priority", "7")
    submit(parked, "second", "--priority", "1", "--after", first)
    shown = get(parked, first)
    assert (shown["priority"], shown["inherited_priority"]) == (7, 1)
    assert "7, as 1" in parked.ask("get", first).stdout


async def test_a_graph_in_any_order_is_answered_in_its_own(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with client_of(server) as client:
            parts = [client.spec(f"part {number}") for number in range(40)]
            whole = client.spec("whole", after=parts, priority=0)
            after = client.spec("after", after=[whole.id])
            tasks = await client.submit_many([after, whole, *parts])
            assert [task.id for task in tasks] == [after.id, whole.id, *(each.id for each in parts)]
            assert tasks[1].state is TaskState.BLOCKED
            await client.result(after.id)
            ended = {id: await client.get(id) for id in (*(p.id for p in parts), whole.id)}
            assert {task.state for task in ended.values()} == {TaskState.SUCCEEDED}
            started = ended[whole.id].started_at
            assert started is not None
            assert all((ended[each.id].finished_at or started + 1) <= started for each in parts)


async def test_a_graph_survives_a_kill_and_its_repetition_changes_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path, *NEVER_LOADED)
    server.start()
    async with client_of(server) as client:
        first = client.spec("first")
        specs = [client.spec("second", after=[first], after_failure="run"), first]
        await client.submit_many(specs)
    server.kill()
    with Server(tmp_path, *INSTANT) as again:
        async with client_of(again) as client:
            tasks = await client.submit_many(specs)
            assert [task.id for task in tasks] == [spec.id for spec in specs]
            await client.result(specs[0].id)
            assert len(await client.list()) == 2


async def test_what_is_wrong_with_one_is_told_by_its_id_and_nothing_is_stored(
    parked: Server,
) -> None:
    async with client_of(parked) as client:
        good, bad = client.spec("good"), client.spec("bad", after=["nowhere"])
        with pytest.raises(NotFound, match=f"task {bad.id}: after nowhere: no such task"):
            await client.submit_many([good, bad])
        other = client.spec("other", after=[good])
        circle = msgspec.structs.replace(good, after=(other.id,))
        with pytest.raises(InvalidRequest, match=f"{other.id} after {circle.id}"):
            await client.submit_many([other, circle])
        with pytest.raises(InvalidRequest, match=f"a circle, {good.id} after {good.id}"):
            await client.submit_many([msgspec.structs.replace(good, after=(good.id,))])
        with pytest.raises(InvalidRequest, match="4096"):
            await client.submit_many(["x"] * 4097)
        assert await client.list() == []
        assert await client.submit_many([]) == []
        taken = await client.submit("kept", key="k")
        with pytest.raises(Conflict, match="key k"):
            await client.submit_many([good, client.spec("other content", key="k")])
        assert [task.id for task in await client.list()] == [taken.id]


async def test_a_circle_that_a_client_does_not_see_is_refused_by_the_server(
    parked: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphclient, "in_order", list[str])
    async with client_of(parked) as client:
        one, two = client.spec("one"), client.spec("two")
        one = msgspec.structs.replace(one, after=(two.id,))
        two = msgspec.structs.replace(two, after=(one.id,))
        with pytest.raises(InvalidRequest, match=f"a circle, {one.id} after {two.id}"):
            await client.submit_many([client.spec("three"), one, two])
        assert await client.list() == []


async def test_the_largest_graph_is_one_submit(parked: Server) -> None:
    async with client_of(parked) as client:
        specs = [client.spec("head", priority=9)]
        for number in range(1, 4096):
            before = (specs[-1].id, specs[number // 2].id)
            specs.append(
                client.spec(f"link {number}", after=before, priority=9 if number % 2 else 1)
            )
        tasks = await client.submit_many(specs)
        assert len(tasks) == 4096
        assert (await client.get(specs[0].id)).inherited_priority == 1
        await client.cancel(specs[0].id)
        with pytest.raises(TaskCancelled, match="which it waits for, is cancelled"):
            await client.result(specs[-1].id)


async def test_an_urgent_task_does_not_wait_for_what_stands_before_its_forerunner(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *NEVER_LOADED) as server:
        async with client_of(server) as client:
            for number in range(OTHERS):
                await client.submit(f"other {number}", priority=5)
            first = await client.submit("first", priority=9)
            second = await client.submit("second", priority=8, after=[first])
            urgent = await client.submit("urgent", priority=0, after=[second])
        server.stop()
    with Server(tmp_path, *ONE_SLOT) as server:
        async with client_of(server) as client:
            await client.result(urgent.id)
            ended = [
                event.task
                async for event in client.events()
                if event.to_state is TaskState.SUCCEEDED
            ]
    assert ended.index(first.id) == 0
    # Who is claimed ahead goes between the links; by what was asked they would all come last.
    assert ended.index(urgent.id) < OTHERS
