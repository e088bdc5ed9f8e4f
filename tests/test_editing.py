"""Editing tasks that wait, in the store: who stands where afterwards, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.policy.rank import HOUR_MS, ranker
from autoglm.errors import Conflict, NotFound
from autoglm.types import Task, TaskState
from autoglm.wire import GetEvents
from runtime.store import protocol as p
from runtime.store.backlog import FetchStanding, Standing
from runtime.store.editing import EditTasks
from runtime.store.sqlite import SqliteStore
from tests.test_store import NOW, Bench, backlog, spec

LANE = ("normal", "default")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "queue.sqlite3")
    bench.store = SqliteStore(bench.path, ranker("priority"))
    await bench.store.open()
    yield bench
    await bench.store.close()


async def edit(bench: Bench, *ids: str, **how: Any) -> Any:
    """The refusal, if it was one."""
    tenant = how.pop("tenant", None)
    return await bench.write(EditTasks(tenant, ids, by="ada", **how), NOW + 5)


async def task(bench: Bench, id: str) -> Task:
    return (await bench.store.query(p.FetchAnswers(None, (id,))))[id].task


async def put_into(bench: Bench, state: TaskState) -> None:
    """Task a, which is number 2, into `state`."""
    await bench.insert(spec("first"))
    await bench.insert(spec("a", after=("first",) if state is TaskState.BLOCKED else ()))
    if state in (TaskState.PENDING, TaskState.BLOCKED):
        return
    if state is TaskState.CANCELLED:
        await bench.write(p.CancelTasks(None, ("a",)))
        return
    await bench.claim(2)
    if state is TaskState.RETRYING:
        await bench.record(p.Outcome(2, 1, state, retry_in_ms=60_000, charged=True))


async def test_an_edited_task_stands_where_it_would_have_stood_from_the_start(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), spec("b", priority=4))
    assert [seq for _, seq in await backlog(bench)] == [2, 1]
    await edit(bench, "a", priority=3)
    assert await backlog(bench) == ((NOW + 3 * HOUR_MS, 1), (NOW + 4 * HOUR_MS, 2))
    await edit(bench, "b", deadline_at=NOW + 7)
    assert await backlog(bench) == ((NOW + 7, 2), (NOW + 3 * HOUR_MS, 1))
    await edit(bench, "b", no_deadline=True)
    assert await backlog(bench) == ((NOW + 3 * HOUR_MS, 1), (NOW + 4 * HOUR_MS, 2))
    assert (await task(bench, "b")).deadline_at is None


async def test_the_scheduler_is_told_of_both_places(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await edit(bench, "a", priority=9)
    assert bench.effects.gone == {LANE: [(NOW + 5 * HOUR_MS, 1)]}
    assert bench.effects.ready == {LANE: [(NOW + 9 * HOUR_MS, 1)]}


async def test_edits_in_one_commit_leave_one_place(bench: Bench) -> None:
    writes = [
        p.InsertTasks((spec("a"),)),
        *(EditTasks(None, ("a",), priority) for priority in (9, 1, 9)),
    ]
    effects = (await bench.store.commit(writes, NOW)).effects
    assert effects.ready == {LANE: [(NOW + 9 * HOUR_MS, 1)]}
    assert (NOW + 1 * HOUR_MS, 1) in effects.gone[LANE]
    assert effects.urgent == []


async def test_what_is_edited_to_be_urgent_is_told_to_be(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b", priority=1))
    assert bench.effects.urgent == [2]
    await edit(bench, "a", priority=1)
    assert bench.effects.urgent == [1]
    await edit(bench, "a", priority=2)
    assert bench.effects.urgent == []


@pytest.mark.parametrize("state", [TaskState.BLOCKED, TaskState.RETRYING])
async def test_what_waits_for_something_is_edited_and_waits_on(
    bench: Bench, state: TaskState
) -> None:
    await put_into(bench, state)
    await edit(bench, "a", priority=0)
    # What it waits for becomes as urgent as it is.
    upstream = {("normal", "default"): [(NOW, 1)]} if state is TaskState.BLOCKED else {}
    assert bench.effects.ready == upstream
    edited = await task(bench, "a")
    assert (edited.state, edited.priority) == (state, 0)


@pytest.mark.parametrize("state", [TaskState.RUNNING, TaskState.CANCELLED])
async def test_what_runs_or_has_ended_is_refused_with_its_state(
    bench: Bench, state: TaskState
) -> None:
    await put_into(bench, state)
    before = await task(bench, "a")
    refusal = await edit(bench, "a", priority=0)
    assert isinstance(refusal, Conflict)
    assert str(refusal) == f"task a is {state.value}: only what waits can be edited"
    assert await task(bench, "a") == before


async def test_several_are_edited_together_or_not_at_all(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b"))
    await bench.claim(2)
    assert isinstance(await edit(bench, "a", "b", priority=0), Conflict)
    assert isinstance(await edit(bench, "a", "nobody", priority=0), NotFound)
    assert (await task(bench, "a")).priority == 5
    await bench.insert(spec("c"))
    assert await edit(bench, "a", "c", "a", priority=0) is None
    assert {(await task(bench, id)).priority for id in "ac"} == {0}


async def test_a_tenant_reaches_its_own_tasks_alone(bench: Bench) -> None:
    await bench.insert(spec("a", tenant="mine"))
    assert isinstance(await edit(bench, "a", priority=0, tenant="other"), NotFound)
    assert await edit(bench, "a", priority=0, tenant="mine") is None


async def test_an_edit_at_another_version_is_refused_naming_both(bench: Bench) -> None:
    await bench.insert(spec("a"))
    seen = (await task(bench, "a")).version
    await edit(bench, "a", priority=1)
    now = (await task(bench, "a")).version
    assert now > seen
    refusal = await edit(bench, "a", priority=2, version=seen)
    assert isinstance(refusal, Conflict)
    assert str(refusal) == f"task a is at version {now}, not {seen}: look at it again"
    assert (await task(bench, "a")).priority == 1
    assert await edit(bench, "a", priority=2, version=now) is None


async def test_whatever_happens_to_a_task_makes_another_version_of_it(bench: Bench) -> None:
    await put_into(bench, TaskState.PENDING)
    seen = (await task(bench, "a")).version
    (claimed,) = await bench.claim(2)
    await bench.record(p.Outcome(2, claimed.attempt, TaskState.PENDING))
    assert isinstance(await edit(bench, "a", priority=0, version=seen), Conflict)


async def test_the_same_edit_again_changes_nothing_whatever_its_version(bench: Bench) -> None:
    await bench.insert(spec("a"))
    seen = (await task(bench, "a")).version
    await edit(bench, "a", priority=1, deadline_at=NOW + 9, version=seen)
    after = await task(bench, "a")
    assert await edit(bench, "a", priority=1, deadline_at=NOW + 9, version=seen) is None
    assert await task(bench, "a") == after
    assert bench.effects == p.Effects()


async def test_the_log_says_that_it_was_edited_and_by_whom(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await edit(bench, "a", priority=1)
    events, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0, task="a")))
    told = [(each.from_state, each.to_state, each.attempt, each.by) for each in events]
    pending = TaskState.PENDING
    assert told == [(None, pending, 0, None), (pending, pending, 0, "ada")]
    assert events[-1].seq == (await task(bench, "a")).version
    summary: p.Summary = await bench.store.query(p.FetchSummary())
    assert summary.counts == {pending: 1}


async def test_an_edited_task_keeps_its_place_when_it_is_put_back_or_retried(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await edit(bench, "a", priority=0)
    (claimed,) = await bench.claim(1)
    assert (claimed.priority, claimed.rank) == (0, NOW)
    await bench.write(p.PutBack(None))
    assert await backlog(bench) == ((NOW, 1),)


async def standing(bench: Bench, id: str, tenant: str | None = None) -> Standing | None:
    return await bench.store.query(FetchStanding(tenant, id))


async def test_a_task_stands_behind_what_is_to_run_before_it(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b"), spec("c", queue="core"), spec("d", priority=1))
    assert await standing(bench, "b") == Standing(LANE, None, ahead=2)
    await edit(bench, "b", priority=0)
    assert await standing(bench, "b") == Standing(LANE, None, ahead=0)
    assert await standing(bench, "b", "other") is None
    await bench.claim(2)
    assert await standing(bench, "b") == Standing(LANE, NOW)
    await bench.write(p.CancelTasks(None, ("b",)))
    assert await standing(bench, "b") is None
