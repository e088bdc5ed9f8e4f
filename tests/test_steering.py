"""What waits too long is refused or put aside, what is paused does not run, and all comes back."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from actors.policy.rank import ranker
from autoglm.errors import NotFound, ServerBusy
from autoglm.types import ErrorInfo, Task, TaskSpec, TaskState
from autoglm.wire import Deed, GetEvents, JobLine
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import steering
from runtime.store.overflow import Overflow
from runtime.store.queueprotocol import BeginServing, SteerQueue
from runtime.store.sqlite import SqliteStore
from runtime.store.standin import PausedQueue
from runtime.store.steering import SteerTasks

NOW = 1_700_000_000_000
WAIT_MS = 3_000


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path, ranker("fifo"))
        self.effects = p.Effects()

    async def write(self, write: p.Write, now: int = NOW) -> Any:
        committed = await self.store.commit([write], now)
        self.effects = committed.effects
        return committed.results[0]

    async def rules(self, *rules: Overflow) -> None:
        await self.write(BeginServing("none", (), rules))

    async def insert(self, *ids: str, now: int = NOW, **more: Any) -> None:
        await self.write(p.InsertTasks(tuple(TaskSpec(id, prompt="x", **more) for id in ids)), now)

    async def steer(self, deed: Deed, *ids: str, **more: Any) -> p.Settled:
        return await self.write(SteerTasks(deed, more.pop("tenant", None), ids, **more))

    async def due(self, now: int) -> None:
        await self.write(p.ReleaseDue(), now)

    async def claim(self, *seqs: int, now: int = NOW) -> tuple[p.ClaimedTask, ...]:
        return await self.write(p.ClaimTasks("batcher", seqs), now)

    async def task(self, id: str) -> Task:
        return (await self.store.query(p.FetchAnswers(None, (id,))))[id].task

    async def states(self, *ids: str) -> list[str]:
        return [(await self.task(id)).state.value for id in ids]

    def wake_at(self, seq: int) -> int | None:
        cx = sqlite3.connect(self.path)
        (at,) = cx.execute("SELECT wake_at FROM task WHERE seq = ?", (seq,)).fetchone()
        cx.close()
        return at


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "queue.sqlite3")
    await bench.store.open()
    yield bench
    await bench.store.close()


REJECT, ARCHIVE = Overflow("core", WAIT_MS, "reject"), Overflow("core", WAIT_MS, "archive")


async def test_who_waits_too_long_is_refused_with_the_reason(bench: Bench) -> None:
    await bench.rules(REJECT)
    await bench.insert("a", queue="core")
    await bench.insert("b")
    assert bench.effects.next_due_ms is None
    await bench.due(NOW + WAIT_MS - 1)
    assert await bench.states("a", "b") == ["pending", "pending"]
    assert bench.effects.next_due_ms == NOW + WAIT_MS
    await bench.due(NOW + WAIT_MS)
    assert await bench.states("a", "b") == ["expired", "pending"]
    error = (await bench.task("a")).error
    assert error == ErrorInfo("queue_wait", "it waited longer than queue 'core' lets it, 3.0s")


async def test_who_is_put_aside_does_not_run_and_comes_back_with_a_new_wait(bench: Bench) -> None:
    await bench.rules(ARCHIVE)
    await bench.insert("a", queue="core")
    await bench.due(NOW + WAIT_MS)
    task = await bench.task("a")
    assert (task.state, task.error is not None) == (TaskState.ARCHIVED, True)
    assert not await bench.claim(1)
    done = await bench.write(SteerTasks("requeue", None, ("a",), by="me"), NOW + 10_000)
    assert (done.count, done.known) == (1, ("a",))
    assert bench.effects.ready.keys() == {("core", "default")}
    assert bench.effects.next_due_ms == NOW + 10_000 + WAIT_MS
    assert (await bench.task("a")).error is None
    await bench.due(NOW + 10_000 + WAIT_MS - 1)
    assert await bench.states("a") == ["pending"]
    events, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0, task="a")))
    assert [(event.to_state.value, event.by) for event in events][-2:] == [
        *(("archived", None), ("pending", "me")),
    ]


async def test_a_claim_ends_the_wait_and_being_put_back_begins_a_new_one(bench: Bench) -> None:
    await bench.rules(ARCHIVE)
    await bench.insert("a", queue="core")
    await bench.claim(1, now=NOW + 1000)
    assert bench.wake_at(1) is None
    await bench.due(NOW + WAIT_MS)
    assert await bench.states("a") == ["running"]
    await bench.write(p.PutBack("batcher"), NOW + 5000)
    assert bench.wake_at(1) == NOW + 5000 + WAIT_MS


async def test_what_expires_first_expires(bench: Bench) -> None:
    await bench.rules(ARCHIVE)
    await bench.insert("a", queue="core", expires_at=NOW + 1000)
    assert bench.effects.next_due_ms == NOW + 1000
    await bench.due(NOW + 1000)
    error = (await bench.task("a")).error
    assert error is not None
    assert error.code == "expired"


async def test_a_rule_that_is_gone_is_not_followed(bench: Bench) -> None:
    await bench.rules(ARCHIVE)
    await bench.insert("a", queue="core", expires_at=NOW + 60_000)
    await bench.rules()
    await bench.due(NOW + WAIT_MS)
    assert await bench.states("a") == ["pending"]
    assert bench.wake_at(1) == NOW + 60_000


async def test_more_than_a_slice_is_put_aside_in_slices(bench: Bench) -> None:
    await bench.rules(ARCHIVE)
    await bench.insert(*(f"{n}" for n in range(750)), queue="core")
    await bench.due(NOW + WAIT_MS)
    assert bench.effects.counts[TaskState.ARCHIVED] == 500
    assert bench.effects.next_due_ms is not None
    assert bench.effects.next_due_ms <= NOW + WAIT_MS, "there is more"
    await bench.due(NOW + WAIT_MS)
    assert bench.effects.counts[TaskState.ARCHIVED] == 250


async def test_every_archived_task_is_requeued_in_slices(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "SLICE", 2)
    await bench.rules(ARCHIVE)
    await bench.insert("a", "b", "c", queue="core")
    await bench.insert("d", queue="core", tenant="other")
    await bench.due(NOW + WAIT_MS)
    first = await bench.steer("requeue", every=True, tenant="default")
    second = await bench.steer("requeue", every=True, tenant="default", after=first.next)
    assert (first.count, second.count, second.next) == (2, 1, None)
    assert await bench.states("a", "b", "c", "d") == ["pending"] * 3 + ["archived"]


async def test_who_is_paused_does_not_run_until_resumed_in_its_old_place(bench: Bench) -> None:
    await bench.insert("a", "b")
    before = dict(bench.effects.ready)
    done = await bench.steer("pause", "a", "nobody", by="me")
    assert (done.known, done.unknown, done.count) == (("a",), ("nobody",), 1)
    assert [task.id for task in await bench.claim(1, 2)] == ["b"]
    again = await bench.steer("pause", "a", "b")
    assert again.count == 0, "one is paused already, the other runs"
    assert await bench.states("a", "b") == ["paused", "running"]
    assert (await bench.steer("resume", "a", "b")).count == 1
    assert bench.effects.ready[("normal", "default")] == before[("normal", "default")][:1]


async def test_a_retry_that_is_paused_does_not_come_back_by_itself(bench: Bench) -> None:
    await bench.insert("a")
    await bench.claim(1)
    retry = p.Outcome(1, 1, TaskState.RETRYING, error=ErrorInfo("x", "y"), retry_in_ms=100)
    await bench.write(p.RecordOutcomes((retry,)))
    assert (await bench.steer("pause", "a")).count == 1
    await bench.due(NOW + 1000)
    assert await bench.states("a") == ["paused"]


async def test_a_job_is_paused_and_resumed_in_slices(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "SLICE", 2)
    await bench.write(jp.OpenJob("job", "default", "/out", "i", "o", fresh=False))
    lines = tuple(JobLine(n, task=TaskSpec(f"{n}", prompt="x")) for n in (1, 2, 3))
    await bench.write(jp.InsertLines(None, "job", lines, last=True))
    await bench.insert("alone")
    for deed, state in (("pause", "paused"), ("resume", "pending")):
        first = await bench.steer(deed, job="job")  # pyright: ignore[reportArgumentType]
        last = await bench.steer(deed, job="job", after=first.next)  # pyright: ignore[reportArgumentType]
        assert (first.count, last.count, last.next) == (2, 1, None)
        assert await bench.states("1", "2", "3", "alone") == [state] * 3 + ["pending"]
    assert isinstance(await bench.steer("pause", job="none"), NotFound)
    assert isinstance(await bench.steer("pause", job="job", tenant="other"), NotFound)


async def test_who_is_paused_or_archived_can_be_cancelled_and_expires(bench: Bench) -> None:
    await bench.rules(ARCHIVE)
    await bench.insert("a", "b", "c", queue="core", expires_at=NOW + 10_000)
    await bench.steer("pause", "a")
    await bench.due(NOW + WAIT_MS)
    assert await bench.states("a", "b", "c") == ["paused", "archived", "archived"]
    await bench.write(p.CancelTasks(None, ("b",)))
    await bench.due(NOW + 10_000)
    assert await bench.states("a", "b", "c") == ["expired", "cancelled", "expired"]


async def test_a_job_that_is_drained_takes_no_more_lines_until_it_is_resumed(bench: Bench) -> None:
    await bench.write(jp.OpenJob("job", "default", "/out", "i", "o", fresh=False))
    one, two = (JobLine(n, task=TaskSpec(f"{n}", prompt="x")) for n in (1, 2))
    await bench.write(jp.InsertLines(None, "job", (one,), last=False))
    await bench.steer("pause", job="job")
    assert (await bench.steer("drain", job="job")).count == 1
    assert await bench.states("1") == ["pending"], "what waits is to be finished"
    refusal = await bench.write(jp.InsertLines(None, "job", (one, two), last=True))
    assert isinstance(refusal, ServerBusy)
    assert (refusal.code, refusal.retry_after) == ("busy", 5.0)
    assert await bench.write(jp.InsertLines(None, "job", (one,), last=False)) == 1, "it is in"
    await bench.steer("resume", job="job")
    assert await bench.write(jp.InsertLines(None, "job", (one, two), last=True)) == 2


async def test_what_waits_in_a_queue_that_is_drained_is_claimed(bench: Bench) -> None:
    await bench.insert("a", queue="core")
    await bench.write(SteerQueue("core", "pause", by="me"))
    await bench.write(SteerQueue("core", "drain", by="you"))
    summary = await bench.store.query(p.FetchSummary())
    assert summary.paused == (PausedQueue("core", "you", draining=True),)
    assert [task.id for task in await bench.claim(1)] == ["a"]


async def test_nothing_of_a_paused_queue_is_claimed(bench: Bench) -> None:
    await bench.insert("a", queue="core")
    await bench.insert("b")
    await bench.write(SteerQueue("core", "pause", by="me"))
    assert bench.effects.paused.keys() == {"core"}
    await bench.write(SteerQueue("core", "pause", by="you"))
    assert not bench.effects.paused, "it was paused already"
    summary = await bench.store.query(p.FetchSummary())
    assert [(each.queue, each.by) for each in summary.paused] == [("core", "me")]
    assert [task.id for task in await bench.claim(1, 2)] == ["b"]
    await bench.write(SteerQueue("core", "resume"))
    assert [task.id for task in await bench.claim(1, 2)] == ["a"]
    assert not (await bench.store.query(p.FetchSummary())).paused
