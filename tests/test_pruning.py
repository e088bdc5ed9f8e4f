"""What is old goes whole, slice by slice; what anybody still needs stays, and no number returns."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from autoglm.errors import NotFound
from autoglm.types import TaskState
from autoglm.wire import GetEvents, ListTasks
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import pruning
from runtime.store import upkeepprotocol as up
from tests.test_store import NOW, Bench, backlog, bench, line, open_job, spec, success

__all__ = ["bench"]
DAY = 86_400_000
TABLES = (
    *("task", "payload", "result", "event", "blocker", "job", "job_line", "chore"),
    *("failure", "original"),
)


async def answer(bench: Bench, *seqs: int, now: int = NOW) -> None:
    await bench.write(p.ClaimTasks("batcher", seqs), now)
    await bench.record(*(success(seq) for seq in seqs), now=now)


async def prune(bench: Bench, before: int = NOW + 1, *, slices: int | None = None) -> up.Pruned:
    """Slice after slice, all of them or so many; what they removed together."""
    after, total = (0, 0), [0, 0, 0, 0]
    while True:
        done: up.Pruned = await bench.write(up.PruneTasks(before, after))
        each = (done.tasks, done.results, done.events, done.jobs)
        total = [so_far + more for so_far, more in zip(total, each, strict=True)]
        slices = None if slices is None else slices - 1
        if done.next is None or slices == 0:
            return up.Pruned(total[0], total[1], total[2], total[3], done.next)
        after = done.next


def rows(bench: Bench) -> dict[str, int]:
    """How many rows each table holds, empty ones left out."""
    cx = sqlite3.connect(bench.path)
    counts = {name: cx.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES}
    cx.close()
    return {name: count for name, count in counts.items() if count}


async def sealed_job(bench: Bench, id: str, *lines: Any, now: int = NOW) -> None:
    opening = jp.OpenJob(id, "default", f"/{id}", "input", "options", fresh=False)
    await bench.write(opening, now)
    await bench.write(jp.InsertLines(None, id, lines, last=True), now)


@pytest.fixture
def tiny_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "SLICE_TASKS", 2)
    monkeypatch.setattr(pruning, "SLICE_EVENTS", 2)


# ── tasks ────────────────────────────────────────────────────────────────────────────────────


async def test_a_task_goes_with_all_that_belongs_to_it_and_its_key_and_id_are_free(
    bench: Bench,
) -> None:
    await bench.insert(spec("a", key="k"))
    await answer(bench, 1)
    assert await prune(bench) == up.Pruned(1, 1, 3, 0, None)
    assert bench.effects.counts == {TaskState.SUCCEEDED: -1}
    assert rows(bench) == {}
    (again,) = await bench.insert(spec("a", prompt="other", key="k"))
    assert not again.duplicate
    assert await bench.path_of("a") == ["pending"]


async def test_what_ended_later_or_has_not_ended_stays(bench: Bench) -> None:
    await bench.insert(*(spec(id) for id in ("old", "new", "running", "pending")))
    await bench.insert(spec("blocked", after=("pending",)), spec("retrying"))
    await answer(bench, 1, now=NOW - DAY)
    await answer(bench, 2, now=NOW)
    await bench.claim(3, 6)
    await bench.record(p.Outcome(6, 1, TaskState.RETRYING, charged=True, retry_in_ms=9))
    assert (await prune(bench, NOW)).tasks == 1
    left, _ = await bench.store.query(p.FetchTasks(None, ListTasks(0, limit=9)))
    assert {task.id for task in left} == {"new", "running", "pending", "blocked", "retrying"}
    assert (await prune(bench, NOW + DAY)).tasks == 1


@pytest.mark.usefixtures("tiny_slices")
async def test_each_slice_is_small_and_together_they_are_all(bench: Bench) -> None:
    await bench.insert(*(spec(str(number)) for number in range(7)))
    await answer(bench, *range(1, 8))
    assert (await prune(bench, slices=1)).tasks == 2
    assert rows(bench)["task"] == 5
    assert (await prune(bench)).tasks == 5
    assert rows(bench) == {}


async def test_a_task_goes_that_others_came_after_and_they_go_on(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b"), spec("c", after=("a", "b")))
    await answer(bench, 1)
    assert (await prune(bench)).tasks == 1
    await answer(bench, 2)
    assert await bench.states("c") == ["pending"]


async def test_a_task_that_was_cancelled_while_it_waited_is_forgotten_by_those_before_it(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), spec("b", after=("a",)))
    await bench.write(p.CancelTasks(None, ("b",)))
    assert (await prune(bench)).tasks == 1
    done = await bench.write(p.CancelTasks(None, ("a",)))
    assert done == p.Settled(("a",), (), 1)


# ── numbers ──────────────────────────────────────────────────────────────────────────────────


async def test_no_number_is_given_out_twice_when_all_is_gone_and_the_server_restarts(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), now=NOW + DAY)
    await answer(bench, 1)
    await prune(bench)
    assert rows(bench) == {}
    await bench.store.close()
    await bench.store.open()
    await bench.insert(spec("b"), now=NOW)
    assert await backlog(bench) == ((NOW + DAY, 2),), (
        "the second number, and logical time does not go back"
    )
    events, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0)))
    assert [event.seq for event in events] == [4]


async def test_no_number_of_an_event_returns_when_the_log_alone_is_gone(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await answer(bench, 1)
    await bench.write(up.PruneEvents(NOW + 1))
    await bench.store.close()
    await bench.store.open()
    await bench.insert(spec("b"))
    events, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0)))
    assert [event.seq for event in events] == [4]


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("tiny_slices")
async def test_a_job_goes_as_a_whole(bench: Bench) -> None:
    lines = [line(number, spec(f"t{number}")) for number in range(1, 6)]
    await sealed_job(bench, "job", *lines)
    await answer(bench, 1, 2, 3, 4, 5)
    assert await prune(bench) == up.Pruned(5, 5, 15, 1, None)
    assert rows(bench) == {}


@pytest.mark.usefixtures("tiny_slices")
async def test_nobody_reads_or_takes_up_a_job_of_which_a_part_is_gone(bench: Bench) -> None:
    lines = [line(number, spec(f"t{number}", key=f"k{number}")) for number in range(1, 6)]
    await sealed_job(bench, "job", *lines)
    await answer(bench, 1, 2, 3, 4, 5)
    assert (await prune(bench, slices=1)).tasks == 2
    with pytest.raises(NotFound):
        await bench.store.query(jp.FetchJobLines(None, "job", 0, ordered=True, limit=9))
    assert isinstance(await bench.write(jp.InsertLines(None, "job", (), last=True)), NotFound)
    lines = [line(1, spec("other", prompt="other", key="k5"))]
    await sealed_job(bench, "meanwhile", *lines)
    assert await bench.states("other") == ["pending"], "the key is free though its task is not gone"
    anew = jp.OpenJob("anew", "default", "/job", "input", "options", fresh=False)
    assert await bench.write(anew) == jp.JobOpening("anew", 0, sealed=False, resumed=False)


@pytest.mark.usefixtures("tiny_slices")
async def test_a_removal_that_was_broken_off_is_finished_after_a_restart(bench: Bench) -> None:
    lines = [line(number, spec(f"t{number}")) for number in range(1, 6)]
    await sealed_job(bench, "job", *lines)
    await answer(bench, 1, 2, 3, 4, 5)
    await prune(bench, slices=1)
    await bench.store.close()
    await bench.store.open()
    slices = 1
    while await bench.write(up.DoChore()):
        slices += 1
    assert slices <= 3
    assert rows(bench) == {}


async def test_a_job_stays_that_may_get_more_lines_or_has_one_that_is_new(bench: Bench) -> None:
    await open_job(bench, "open")
    await bench.write(jp.InsertLines(None, "open", (line(1, spec("a")),), last=False))
    await answer(bench, 1)
    await sealed_job(bench, "new", line(1, spec("b")), line(2, spec("c")))
    await answer(bench, 2)
    await answer(bench, 3, now=NOW + DAY)
    await bench.write(jp.OpenJob("just sealed", "default", "/o", "", "", fresh=False))
    late = jp.InsertLines(None, "just sealed", (), last=True)
    await bench.write(late, NOW + DAY)
    assert await prune(bench) == up.Pruned(0, 0, 0, 0, None)
    assert (await prune(bench, NOW + DAY + 1)).jobs == 2


async def test_a_job_that_was_started_over_goes_though_it_never_was_complete(bench: Bench) -> None:
    await open_job(bench)
    await bench.write(jp.InsertLines(None, "job", (line(1, spec("a")),), last=False))
    await open_job(bench, "second", fresh=True)
    while await bench.write(up.DoChore()):
        pass
    assert (await prune(bench)).jobs == 1
    assert rows(bench) == {"job": 1}


async def test_a_task_that_jobs_share_goes_with_the_last_of_them(bench: Bench) -> None:
    await bench.insert(spec("a", prompt="x", key="k"))
    twins = [line(number, spec(f"b{number}", prompt="x", key="k")) for number in (1, 2)]
    await sealed_job(bench, "first", line(1, spec("c", prompt="x", key="k")))
    await sealed_job(bench, "second", *twins, line(3, spec("d")))
    await answer(bench, 1)
    assert (await prune(bench)).jobs == 1
    assert await bench.states("a") == ["succeeded"]
    ((_, last),) = await backlog(bench)
    await answer(bench, last)
    assert await prune(bench) == up.Pruned(2, 2, 6, 1, None)
    assert rows(bench) == {}


# ── events ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("tiny_slices")
async def test_events_go_alone_where_they_are_old_and_their_task_has_ended(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b"), now=NOW - DAY)
    await bench.claim(2)
    await answer(bench, 1)
    after, removed = (0, 0), 0
    while True:
        done: up.Pruned = await bench.write(up.PruneEvents(NOW, after))
        removed += done.events
        if done.next is None:
            break
        after = done.next
    assert removed == 1
    assert await bench.path_of("a") == ["running", "succeeded"]
    assert await bench.path_of("b") == ["pending", "running"]
    assert (await prune(bench)).events == 2, "what is left of its log goes with the task"


# ── cost ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_old_is_found_by_an_index(bench: Bench) -> None:
    statement = pruning._FREE_TASKS  # pyright: ignore[reportPrivateUsage]
    cx = sqlite3.connect(bench.path)
    plan = cx.execute(f"EXPLAIN QUERY PLAN {statement}", (9, 0, 0, 9)).fetchall()
    cx.close()
    assert "USING INDEX task_ended (finished_at>? AND finished_at<?)" in str(plan)
    assert "TEMP B-TREE" not in str(plan)
