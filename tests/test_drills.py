"""Failure drills: a census finds what is lost, a fault of the disk ends, a blow falls once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from actors.policy.rank import ranker
from autoglm.drill import Census, DrillReport
from autoglm.drilling import describe
from autoglm.paint import Paint
from autoglm.types import Output, TaskSpec, TaskState, Usage
from runtime.blow import Blow
from runtime.mailbox import ActorDied, Answered, Mailbox, Reply
from runtime.store import census, faults
from runtime.store import protocol as p
from runtime.store.sqlite import SqliteStore

NOW = 1_700_000_000_000
SUCCEEDED_AGAIN = """
SELECT 99, task, prev, from_state, to_state, attempt, at, cost, by FROM event
WHERE to_state = 'succeeded'
"""
BODY = "a prompt of some length " * 500


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "queue.sqlite3", ranker("fifo"))
    await store.open()
    yield store
    await store.close()


async def submit(store: SqliteStore, *ids: str, at: int = NOW) -> None:
    await store.commit([p.InsertTasks(tuple(TaskSpec(id, prompt=BODY) for id in ids))], at)


async def answer(store: SqliteStore, *seqs: int, at: int = NOW) -> None:
    await store.commit([p.ClaimTasks("batcher-1", seqs)], at)
    output = Output("text", "stop", Usage())
    outcomes = tuple(p.Outcome(seq, 1, TaskState.SUCCEEDED, output) for seq in seqs)
    await store.commit([p.RecordOutcomes(outcomes)], at)


async def look(store: SqliteStore, since: Census | None = None, after: int = 0) -> Census:
    tasks, events = (0, 2**53) if since is None else (since.tasks, since.events)
    found: Census = await store.query(census.TakeCensus(tasks, events, NOW, after))
    return found


def damage(store: SqliteStore, statement: str) -> None:
    cx = sqlite3.connect(store.path)
    with cx:
        cx.execute(statement)
    cx.close()


# ── the census ───────────────────────────────────────────────────────────────────────────────────


async def test_tasks_that_ended_or_wait_since_a_census_are_all_held(store: SqliteStore) -> None:
    await submit(store, "a", "b", "c")
    await answer(store, 1)
    before = await look(store)
    assert before.open == 2
    await answer(store, 2, at=NOW + 5)
    await submit(store, "d")
    now = await look(store, before)
    assert (now.held, now.accepted, now.missing, now.no_result, now.twice) == (2, 1, 0, 0, 0)
    assert now.answered_at == NOW + 5


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DELETE FROM task WHERE id = 'b'", {"held": 1}),
        ("DELETE FROM task WHERE id = 'd'", {"missing": 1}),
        ("DELETE FROM result", {"no_result": 1}),
        (f"INSERT INTO event {SUCCEEDED_AGAIN}", {"twice": 1}),
    ],
)
async def test_a_census_finds_what_is_lost_or_recorded_twice(
    store: SqliteStore, statement: str, what: dict[str, int]
) -> None:
    await submit(store, "a", "b")
    before = await look(store)
    await submit(store, "d")
    await answer(store, 1)
    damage(store, statement)
    now = msgspec.structs.asdict(await look(store, before))
    sound = {"held": 2, "missing": 0, "no_result": 0, "twice": 0}
    assert {name: now[name] for name in sound} == sound | what


async def test_a_census_goes_through_the_tasks_in_slices(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "TASKS_SLICE", 2)
    await submit(store, "a", "b", "c")
    before = await look(store)
    await submit(store, "d")
    first = await look(store, before)
    assert (first.held, first.next) == (2, 2)
    last = await look(store, before, after=2)
    assert (last.held, last.next) == (1, None)


async def test_a_census_tells_what_was_put_back_and_what_was_charged(store: SqliteStore) -> None:
    await submit(store, "a", "b")
    before = await look(store)
    await store.commit([p.ClaimTasks("batcher-1", (1, 2))], NOW)
    failed = p.Outcome(2, 1, TaskState.RETRYING, charged=True, retry_in_ms=5)
    await store.commit([p.RecordOutcomes((failed,)), p.PutBack("batcher-1")], NOW)
    now = await look(store, before)
    assert (now.put_back, now.put_back_open, now.charged) == (1, 1, 1)


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_full_disk_refuses_every_write_with_sqlites_own_error(store: SqliteStore) -> None:
    await submit(store, "a")
    await store.impair(p.Fault(NOW + 1000, full=True))
    for number in range(5):
        with pytest.raises(p.StoreBlocked, match=r"SQLITE_FULL.*this is a drill") as refusal:
            await submit(store, f"refused {number}")
        assert isinstance(refusal.value.__cause__, sqlite3.OperationalError)
    assert (await look(store)).tasks == 1


async def test_a_full_disk_refuses_although_there_is_free_room_inside_the_file(
    store: SqliteStore,
) -> None:
    await submit(store, *map(str, range(50)))
    damage(store, "DELETE FROM payload")
    await store.impair(p.Fault(NOW + 1000, full=True))
    with pytest.raises(p.StoreBlocked):
        await submit(store, "refused")


async def test_a_full_disk_takes_all_again_when_its_time_is_over_or_it_is_lifted(
    store: SqliteStore,
) -> None:
    for round_, lift in enumerate((False, True)):
        await store.impair(p.Fault(NOW + 1000, full=True))
        with pytest.raises(p.StoreBlocked):
            await submit(store, "refused")
        if lift:
            await store.impair(None)
        ids = [f"{round_} {number}" for number in range(50)]
        await submit(store, *ids, at=NOW if lift else NOW + 1000)
    assert (await look(store)).open == 100


async def test_more_free_room_than_a_drill_may_use_up_is_refused(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "FREE_BYTES_MAX", 4096)
    await submit(store, *map(str, range(50)))
    damage(store, "DELETE FROM payload")
    with pytest.raises(p.StoreError, match="free room"):
        await store.impair(p.Fault(NOW + 1000, full=True))
    await submit(store, "accepted")


# ── the blow ─────────────────────────────────────────────────────────────────────────────────────


class Question(msgspec.Struct):
    number: int
    reply: Reply


def test_a_blow_falls_with_the_first_message_in_hand_and_the_others_come_back() -> None:
    answers: Mailbox[Answered] = Mailbox(3)
    mailbox: Mailbox[Question] = Mailbox(3)
    blow = Blow(RuntimeError("a drill"))
    mailbox.blow = blow
    assert mailbox.drain_nowait() == []
    for number in range(3):
        reply = answers.reserve(number)
        assert reply is not None
        mailbox.put_nowait(Question(number, reply))
    with pytest.raises(RuntimeError, match="a drill"):
        mailbox.drain_nowait()
    mailbox.restore("actor")
    assert answers.drain_nowait() == [Answered(0, ActorDied("actor"))]
    assert [question.number for question in mailbox.drain_nowait()] == [1, 2]


def test_a_blow_falls_once_on_the_mailboxes_of_one_actor() -> None:
    blow = Blow(RuntimeError("a drill"))
    blow.idle = True
    first: Mailbox[int] = Mailbox(1)
    second: Mailbox[int] = Mailbox(1)
    first.blow = second.blow = blow
    with pytest.raises(RuntimeError, match="a drill"):
        second.drain_nowait()
    assert first.drain_nowait() == second.drain_nowait() == []


# ── the report ───────────────────────────────────────────────────────────────────────────────────

GOOD = DrillReport(
    *("id", "fill-disk", "store", "me", None, None, NOW, True, 0.5, "its time was over"),
    *(3.0, 3.25, 7, 5, 0, 0, 4, 0, 0, 9, {"unavailable": 4}, 0.125, ()),
)


def test_a_good_report_is_green_where_it_matters() -> None:
    lines = "\n".join(describe(GOOD, Paint(on=True)))
    assert "\x1b[32m0 of 7 open before and 5 accepted since" in lines
    assert "5 accepted, the slowest in 0.125 s; 4 refused" in lines
    assert lines.endswith("\x1b[32mrecovered\x1b[0m")


def test_a_bad_report_says_what_is_lost_and_what_has_not_come_back() -> None:
    bad = msgspec.structs.replace(
        GOOD, ok=False, lost=2, up_s=None, answered_s=None, not_back=("engine-1 is\ndown",)
    )
    lines = describe(bad, Paint(on=False))
    assert "lost        2 of 7 open before and 5 accepted since" in lines
    assert lines[-2:] == ["not back: engine-1 is down", "NOT RECOVERED"]
