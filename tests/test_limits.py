"""What waits is counted exactly, and what does not fit is refused whole, before it is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.rank import ranker
from actors.policy.tempo import MEMORY_S, Tempo
from autoglm.errors import ServerBusy
from autoglm.types import ErrorInfo, Message, TaskSpec, TaskState
from autoglm.wire import JobLine
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store.content import body_of
from runtime.store.graphprotocol import InsertGraph
from runtime.store.limits import Closed, Limits, TenantLimits
from runtime.store.sqlite import SqliteStore

NOW = 1_700_000_000_000


class Bench:
    def __init__(self, path: Path) -> None:
        self.store = SqliteStore(path, ranker("fifo"))
        self.limits = Limits()

    async def write(self, *writes: p.Write) -> list[Any]:
        return list((await self.store.commit(writes, NOW)).results)

    def insert(self, *specs: TaskSpec) -> p.InsertTasks:
        return p.InsertTasks(specs, limits=self.limits)

    async def hand_in(self, *ids: str, tenant: str = "default", **more: Any) -> Any:
        specs = [TaskSpec(id, prompt="x", tenant=tenant, **more) for id in ids]
        (result,) = await self.write(self.insert(*specs))
        return result

    async def states(self, *ids: str) -> dict[str, str]:
        found = await self.store.query(p.FetchAnswers(None, ids))
        return {id: answer.task.state.value for id, answer in found.items()}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "queue.sqlite3")
    await bench.store.open()
    yield bench
    await bench.store.close()


def of_tenant(most: int) -> Limits:
    return Limits(tenants={"default": TenantLimits(most)})


@pytest.mark.parametrize("limits", [Limits(3), of_tenant(3)])
async def test_what_does_not_fit_is_refused_whole(bench: Bench, limits: Limits) -> None:
    bench.limits = limits
    assert isinstance(await bench.hand_in("a", "b"), tuple)
    refusal = await bench.hand_in("c", "d")
    assert isinstance(refusal, ServerBusy)
    assert (refusal.code, refusal.retry_after) == ("busy", 1.0)
    assert await bench.states("a", "b", "c", "d") == {"a": "pending", "b": "pending"}
    assert isinstance(await bench.hand_in("c"), tuple)


async def test_a_queue_that_is_closed_takes_nothing_new_and_knows_what_it_has(bench: Bench) -> None:
    assert isinstance(await bench.hand_in("a", queue="core"), tuple)
    bench.limits = Limits(queues={"core": Closed("it is closed", 2.5)})
    refusal = await bench.hand_in("b", queue="core")
    assert isinstance(refusal, ServerBusy)
    assert (str(refusal), refusal.retry_after) == ("it is closed", 2.5)
    assert isinstance(await bench.hand_in("a", queue="core"), tuple), "it is there already"
    assert isinstance(await bench.hand_in("c"), tuple), "it is of another queue"
    assert await bench.states("a", "b", "c") == {"a": "pending", "c": "pending"}


async def test_what_waits_is_known_by_queue_and_tenant(bench: Bench) -> None:
    committed = await bench.store.commit(
        [bench.insert(TaskSpec("a", prompt="x", tenant="t", queue="core"))], NOW
    )
    assert committed.effects.waiting == {("core", "t"): 1}
    await bench.hand_in("b", "c", tenant="t")
    summary = await bench.store.query(p.FetchSummary())
    assert summary.waiting == {("core", "t"): 1, ("normal", "t"): 2}
    committed = await bench.store.commit([p.ClaimTasks("me", (1, 2))], NOW)
    assert committed.effects.waiting == {("core", "t"): -1, ("normal", "t"): -1}
    summary = await bench.store.query(p.FetchSummary())
    assert summary.waiting == {("normal", "t"): 1}


async def test_a_graph_that_does_not_fit_is_refused_whole(bench: Bench) -> None:
    graph = (TaskSpec("a", prompt="x"), TaskSpec("b", prompt="x", after=("a",)))
    (refusal,) = await bench.write(InsertGraph(graph, limits=of_tenant(1)))
    assert isinstance(refusal, ServerBusy)
    assert await bench.states("a", "b") == {}
    (accepted,) = await bench.write(InsertGraph(graph, limits=of_tenant(2)))
    assert await bench.states("a", "b") == {"a": "pending", "b": "blocked"}
    assert [each.task.id for each in accepted] == ["a", "b"]


async def test_the_limit_of_one_tenant_is_nothing_to_another(bench: Bench) -> None:
    bench.limits = of_tenant(1)
    assert isinstance(await bench.hand_in("a"), tuple)
    assert isinstance(await bench.hand_in("b"), ServerBusy)
    assert isinstance(await bench.hand_in("c", "d", tenant="other"), tuple)


async def test_requests_in_one_commit_are_added_up(bench: Bench) -> None:
    bench.limits = Limits(3)
    results = await bench.write(
        *(bench.insert(*(TaskSpec(id, prompt="x") for id in ids)) for ids in ("ab", "cd", "e"))
    )
    assert [isinstance(result, ServerBusy) for result in results] == [False, True, False]
    assert sorted(await bench.states(*"abcde")) == ["a", "b", "e"]


async def test_what_is_known_takes_no_room(bench: Bench) -> None:
    bench.limits = Limits(2)
    await bench.hand_in("a", key="k")
    await bench.hand_in("b")
    again = await bench.hand_in("a", "b", key=None)
    assert isinstance(again, tuple)
    assert await bench.hand_in("twin", key="k"), "the same key is the same task"
    assert isinstance(await bench.hand_in("a", "b", "c"), ServerBusy)


async def test_one_key_twice_in_a_request_is_one_task(bench: Bench) -> None:
    bench.limits = Limits(1)
    assert isinstance(await bench.hand_in("a", "b", key="k"), tuple)


async def test_the_key_of_a_job_started_over_is_new_work(bench: Bench) -> None:
    opening = jp.OpenJob("one", "default", "/out", "i", "o", fresh=True)
    line = JobLine(1, task=TaskSpec("a", prompt="x", key="k"))
    await bench.write(opening, jp.InsertLines(None, "one", (line,), last=False))
    await bench.write(jp.OpenJob("two", "default", "/out", "i", "o", fresh=True))
    bench.limits = Limits(1)
    assert isinstance(await bench.hand_in("b", key="k"), ServerBusy)


async def test_lines_that_do_not_fit_are_handed_in_again(bench: Bench) -> None:
    await bench.write(jp.OpenJob("job", "default", "/out", "i", "o", fresh=False))
    lines = tuple(JobLine(n, task=TaskSpec(f"t{n}", prompt="x")) for n in (1, 2, 3))

    async def hand_in(*some: JobLine) -> Any:
        (result,) = await bench.write(
            jp.InsertLines(None, "job", some, last=False, limits=Limits(2))
        )
        return result

    assert isinstance(await hand_in(*lines), ServerBusy)
    assert await hand_in(*lines[:2]) == 2
    assert await hand_in(*lines[:2]) == 2, "a repeat takes no room"
    assert isinstance(await hand_in(*lines), ServerBusy)
    assert await bench.states("t1", "t2", "t3") == {"t1": "pending", "t2": "pending"}


async def test_bytes_are_those_of_what_is_stored(bench: Bench) -> None:
    spec = TaskSpec("a", messages=(Message("user", "é" * 100),))
    size = len(body_of(spec).encode())
    bench.limits = Limits(max_pending_bytes=2 * size - 1)
    (first,) = await bench.write(bench.insert(spec))
    assert isinstance(first, tuple)
    (second,) = await bench.write(bench.insert(TaskSpec("b", messages=spec.messages)))
    assert isinstance(second, ServerBusy)
    assert f"{size} bytes" in str(second)


async def test_who_runs_or_has_ended_takes_no_room_and_who_comes_back_does(bench: Bench) -> None:
    bench.limits = Limits(1)
    await bench.hand_in("a")
    (claimed,) = await bench.write(p.ClaimTasks("batcher", (1,)))
    assert len(claimed) == 1
    assert isinstance(await bench.hand_in("b"), tuple)
    retry = p.Outcome(1, 1, TaskState.RETRYING, error=ErrorInfo("x", "y"), retry_in_ms=10_000)
    await bench.write(p.RecordOutcomes((retry,)))
    await bench.write(p.CancelTasks(None, ("b",)))
    assert isinstance(await bench.hand_in("c"), ServerBusy)
    await bench.write(p.CancelTasks(None, ("a",)))
    assert isinstance(await bench.hand_in("c"), tuple)


async def test_retry_after_is_how_long_it_takes_at_the_present_pace(bench: Bench) -> None:
    bench.limits = Limits(10, endings_per_s=2.0)
    await bench.hand_in(*"abcdefghi")
    refusal = await bench.hand_in(*"klmno")
    assert refusal.retry_after == pytest.approx(2.0), "four have to end"
    never = await bench.hand_in(*"ABCDEFGHIJK")
    assert never.retry_after == pytest.approx(0.1), "eleven never fit: fewer at a time do"


@given(st.floats(0.1, 1000), st.integers(1, 100))
def test_a_steady_pace_is_what_it_is(per_s: float, seconds: int) -> None:
    pace = Tempo(0)
    for second in range(1, seconds + 1):
        pace.ended(1, second / per_s)
    if seconds / per_s > 1:
        assert pace.per_s(seconds / per_s) == pytest.approx(per_s, rel=0.7)


def test_a_pace_is_forgotten() -> None:
    pace = Tempo(0)
    pace.ended(100, 1)
    assert pace.per_s(1) > 50
    assert pace.per_s(1 + 10 * MEMORY_S) < 0.01
