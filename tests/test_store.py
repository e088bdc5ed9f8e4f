"""The store on real SQLite: durable, idempotent, fenced; its errors say what to do."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import sys
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from actors.policy.rank import ranker
from autoglm.errors import AutoGLMError, Conflict, NotFound
from autoglm.types import ErrorInfo, Output, TaskSpec, TaskState, Usage
from autoglm.wire import Accepted, GetEvents, JobLine, ListTasks
from runtime.store import endings
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import scheduleprotocol as sp
from runtime.store import upkeepprotocol as up
from runtime.store.opening import SCHEMA_VERSION
from runtime.store.sqlite import SqliteStore
from runtime.store.transact import transact
from runtime.store.transaction import Counters

NOW = 1_700_000_000_000


by_arrival = ranker("fifo")


class Bench:
    """A store, and shorthands for what the tests ask of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path, by_arrival)
        self.effects = p.Effects()

    async def write(self, write: p.Write, now: int = NOW) -> Any:
        committed = await self.store.commit([write], now)
        self.effects = committed.effects
        return committed.results[0]

    async def insert(self, *specs: TaskSpec, now: int = NOW) -> tuple[Accepted, ...]:
        return await self.write(p.InsertTasks(specs), now)

    async def claim(self, *seqs: int, owner: str = "batcher") -> tuple[p.ClaimedTask, ...]:
        return await self.write(p.ClaimTasks(owner, seqs))

    async def record(self, *outcomes: p.Outcome, now: int = NOW) -> int:
        return await self.write(p.RecordOutcomes(outcomes), now)

    async def states(self, *ids: str) -> list[str]:
        found = await self.store.query(p.FetchAnswers(None, ids))
        return [found[id].task.state.value for id in ids]

    async def path_of(self, id: str) -> list[str]:
        events, _, _ = await self.store.query(p.FetchEvents(None, GetEvents(0, task=id)))
        return [event.to_state.value for event in events]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "queue.sqlite3")
    await bench.store.open()
    yield bench
    await bench.store.close()


def spec(id: str, **more: Any) -> TaskSpec:
    return msgspec.structs.replace(TaskSpec(id, prompt=f"prompt {id}"), **more)


async def backlog(bench: Bench) -> tuple[p.Key, ...]:
    """The plain lane's first tasks."""
    reads = (sp.LaneRead(("normal", "default"), None),)
    (keys,) = (await bench.store.query(sp.FetchBacklog(reads, 9))).keys
    return keys


def success(seq: int, attempt: int = 1, text: str = "text") -> p.Outcome:
    usage = Usage(3, 2)
    output = Output(text, "stop", usage)
    return p.Outcome(seq, attempt, TaskState.SUCCEEDED, output, usage=usage)


# ── taking in ────────────────────────────────────────────────────────────────────────────────


async def test_handing_the_same_task_in_twice_is_the_same_as_once(bench: Bench) -> None:
    (first,) = await bench.insert(spec("a"))
    (again,) = await bench.insert(spec("a", priority=1))
    assert first.task is not None
    assert not first.duplicate
    assert again.duplicate
    assert again.task == first.task
    assert bench.effects.ready == {}


async def test_a_known_id_with_other_content_is_a_conflict_and_changes_nothing(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"))
    (other,) = await bench.insert(spec("a", prompt="something else"))
    assert other.task is None
    assert other.error is not None
    assert other.error.code == "conflict"


async def test_a_key_belongs_to_its_tenant(bench: Bench) -> None:
    (first,) = await bench.insert(spec("a", prompt="x", key="k"))
    same, other, elsewhere = await bench.insert(
        spec("b", prompt="x", key="k"),
        spec("c", prompt="y", key="k"),
        spec("d", prompt="y", key="k", tenant="another"),
    )
    assert same.duplicate
    assert same.task == first.task
    assert other.error is not None
    assert other.error.code == "conflict"
    assert not elsewhere.duplicate


async def test_another_tenants_id_is_a_conflict_that_tells_nothing(bench: Bench) -> None:
    await bench.insert(spec("a", tenant="theirs"))
    (taken,) = await bench.insert(spec("a", tenant="ours"))
    assert taken.task is None
    assert taken.error == ErrorInfo("conflict", "id a is taken by a task with other content")


async def test_ranks_never_go_back_when_the_clock_does(bench: Bench) -> None:
    await bench.insert(spec("a"), now=NOW)
    await bench.insert(spec("b"), now=NOW - 86_400_000)
    await bench.store.close()
    await bench.store.open()
    await bench.insert(spec("c"), now=NOW - 86_400_000)
    assert await backlog(bench) == ((NOW, 1), (NOW, 2), (NOW, 3))


# ── attempts ─────────────────────────────────────────────────────────────────────────────────


async def test_a_claim_raises_the_attempt_and_passes_over_what_is_not_pending(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), spec("b"))
    (claimed,) = await bench.claim(1, owner="one")
    assert (claimed.id, claimed.attempt, claimed.prompt) == ("a", 1, "prompt a")
    assert [task.id for task in await bench.claim(1, 2, 99, owner="two")] == ["b"]


async def test_a_result_is_recorded_once_and_late_writers_write_nothing(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await bench.claim(1)
    assert await bench.record(success(1, attempt=0)) == 0
    assert await bench.record(success(1, text="right")) == 1
    assert await bench.record(success(1, text="wrong")) == 0
    found = await bench.store.query(p.FetchAnswers(None, ("a",)))
    assert found["a"].result == Output("right", "stop", Usage(3, 2))
    assert await bench.path_of("a") == ["pending", "running", "succeeded"]


async def test_a_stale_attempt_is_fenced_off_after_the_next_claim(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await bench.claim(1)
    assert await bench.write(p.PutBack("batcher")) == ((1, 1),)
    await bench.claim(1)
    assert await bench.record(success(1, attempt=1)) == 0
    assert await bench.record(success(1, attempt=2)) == 1


async def test_answers_and_failures_recorded_together_each_keep_their_own_event(
    bench: Bench,
) -> None:
    await bench.insert(*(spec(id) for id in "abcde"))
    await bench.claim(1, 2, 3, 4, 5)
    failed = [p.Outcome(seq, 1, TaskState.DEAD, error=ErrorInfo("x", "no")) for seq in (2, 4)]
    recorded = await bench.record(success(1), failed[0], success(3), failed[1], success(5))
    assert recorded == 5
    with contextlib.closing(sqlite3.connect(bench.path)) as cx:
        last = cx.execute(
            "SELECT t.seq, e.task, t.state = e.to_state, e.seq = (SELECT max(seq) FROM event"
            " WHERE task = t.seq) FROM task t JOIN event e ON e.seq = t.last_event"
        ).fetchall()
    assert last == [(seq, seq, 1, 1) for seq in (1, 2, 3, 4, 5)]


async def test_what_is_put_back_is_its_owners_alone_and_not_what_is_kept(bench: Bench) -> None:
    await bench.insert(*(spec(id) for id in "abcd"))
    await bench.claim(1, 2, owner="one")
    await bench.claim(3, owner="two")
    assert await bench.write(p.PutBack("one", frozenset({(2, 1)}))) == ((1, 1),)
    assert await bench.states(*"abc") == ["pending", "running", "running"]
    assert await bench.write(p.PutBack(None)) == ((2, 1), (3, 1))


async def test_an_older_attempt_is_not_what_is_kept(bench: Bench) -> None:
    await bench.insert(spec("a"))
    for _ in range(2):
        await bench.claim(1)
        await bench.write(p.PutBack("batcher", frozenset({(1, 0)})))
    await bench.claim(1)
    assert await bench.write(p.PutBack("batcher", frozenset({(1, 1)}))) == ((1, 3),)


async def test_a_failure_waits_out_its_pause_and_a_death_is_counted(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await bench.claim(1)
    error = ErrorInfo("engine_error", "no")
    retry = p.Outcome(1, 1, TaskState.RETRYING, error=error, charged=True, retry_in_ms=100)
    await bench.record(retry)
    assert bench.effects.next_due_ms == NOW + 100
    await bench.write(p.ReleaseDue(), NOW + 99)
    assert await bench.states("a") == ["retrying"]
    assert bench.effects.next_due_ms == NOW + 100
    await bench.write(p.ReleaseDue(), NOW + 100)
    assert bench.effects.ready == {("normal", "default"): [(NOW, 1)]}
    (again,) = await bench.claim(1)
    assert (again.attempt, again.failures, again.deaths) == (2, 1, 0)
    await bench.record(p.Outcome(1, 2, TaskState.PENDING, died=True))
    (third,) = await bench.claim(1)
    assert (third.failures, third.deaths) == (1, 1)


@pytest.mark.parametrize("claimed", [False, True])
async def test_what_is_past_expires_ends_wherever_it_stands(bench: Bench, claimed: bool) -> None:
    await bench.insert(spec("a", expires_at=NOW + 10))
    assert bench.effects.next_due_ms == NOW + 10
    if claimed:
        await bench.claim(1)
    await bench.write(p.ReleaseDue(), NOW + 10)
    assert await bench.states("a") == ["expired"]
    assert [stopped.owner for stopped in bench.effects.stopped] == ["batcher"] * claimed
    assert await bench.record(success(1)) == 0


@pytest.mark.parametrize("end", ["success", "cancel"])
def test_what_the_end_of_a_line_costs_does_not_grow_with_its_job(tmp_path: Path, end: str) -> None:
    def steps_to_end_one(lines: int) -> int:
        """In hundreds of steps of SQLite's machine."""
        steps = 0

        def count() -> None:
            nonlocal steps
            steps += 1

        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as cx:
            cx.executescript(files("runtime.store").joinpath("schema.sql").read_text())
            counters = Counters(cx)

            def write(*writes: p.Write) -> None:
                transact(cx, counters, writes, NOW, by_arrival)

            given = tuple(line(n, spec(f"t{n}")) for n in range(1, lines + 1))
            write(jp.OpenJob("job", "default", "/out", "input", "options", fresh=False))
            write(jp.InsertLines("default", "job", given, last=True))
            write(p.ClaimTasks("batcher", (1,)))
            cx.set_progress_handler(count, 100)
            write(
                p.RecordOutcomes((success(1),))
                if end == "success"
                else p.CancelTasks(None, ("t1",))
            )
        return steps

    assert steps_to_end_one(5000) <= steps_to_end_one(50) + 10


async def test_what_is_due_at_once_for_many_is_done_in_slices(bench: Bench) -> None:
    count = endings.RELEASE_SLICE + 1
    await bench.insert(*(spec(f"t{number}", expires_at=NOW + 10) for number in range(count)))
    await bench.write(p.ReleaseDue(), NOW + 20)
    assert len(bench.effects.endings) == count - 1
    assert bench.effects.next_due_ms == NOW + 10
    await bench.write(p.ReleaseDue(), NOW + 20)
    assert len(bench.effects.endings) == 1
    assert bench.effects.next_due_ms is None


async def test_a_pause_survives_the_server(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await bench.claim(1)
    await bench.record(p.Outcome(1, 1, TaskState.RETRYING, charged=True, retry_in_ms=100))
    await bench.store.close()
    await bench.store.open()
    await bench.write(p.PutBack(None, pause_max_ms=5_000), NOW + 50)
    await bench.write(p.ReleaseDue(), NOW + 99)
    assert await bench.states("a") == ["retrying"]
    await bench.write(p.ReleaseDue(), NOW + 100)
    assert await bench.states("a") == ["pending"]


async def test_after_a_restart_a_pause_is_no_longer_than_one_can_be_whatever_the_clock_says(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"))
    await bench.claim(1)
    await bench.record(p.Outcome(1, 1, TaskState.RETRYING, charged=True, retry_in_ms=100))
    a_day_before = NOW - 86_400_000
    await bench.write(p.PutBack(None, pause_max_ms=5_000), a_day_before)
    await bench.write(p.ReleaseDue(), a_day_before + 4_999)
    assert await bench.states("a") == ["retrying"]
    await bench.write(p.ReleaseDue(), a_day_before + 5_000)
    assert await bench.states("a") == ["pending"]


async def test_a_task_that_expires_during_its_pause_is_not_tried_again(bench: Bench) -> None:
    await bench.insert(spec("a", expires_at=NOW + 50))
    await bench.claim(1)
    await bench.record(p.Outcome(1, 1, TaskState.RETRYING, charged=True, retry_in_ms=100))
    await bench.write(p.ReleaseDue(), NOW + 100)
    assert await bench.states("a") == ["expired"]


async def test_the_limits_of_a_task_come_with_each_claim(bench: Bench) -> None:
    await bench.insert(spec("a", max_attempts=7, attempt_timeout_s=1.5), spec("b"))
    limited, plain = await bench.claim(1, 2)
    assert (limited.max_attempts, limited.attempt_timeout_s) == (7, 1.5)
    assert (plain.max_attempts, plain.attempt_timeout_s) == (None, None)


async def test_other_limits_are_no_other_content(bench: Bench) -> None:
    await bench.insert(spec("a", key="k", max_attempts=7))
    again, other = await bench.insert(
        spec("a", key="k", attempt_timeout_s=2), spec("a", key="k", prompt="else", max_attempts=7)
    )
    assert again.duplicate
    assert other.error is not None


# ── cancelling and waiting for others ────────────────────────────────────────────────────────


async def test_cancelling_ends_what_has_not_ended_within_reach(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b"), spec("theirs", tenant="t"))
    await bench.claim(2)
    await bench.record(success(2))
    seen = await bench.write(p.CancelTasks("default", ("a", "b", "theirs", "none")))
    assert seen == p.Settled(("a", "b"), ("theirs", "none"), 1)
    assert await bench.states("a", "b", "theirs") == ["cancelled", "succeeded", "pending"]


async def test_a_task_waits_for_those_it_comes_after(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b"), spec("c", after=("a", "b")))
    for seq in (1, 2):
        assert await bench.states("c") == ["blocked"]
        await bench.claim(seq)
        await bench.record(success(seq))
    assert await bench.states("c") == ["pending"]
    assert bench.effects.ready == {("normal", "default"): [(NOW, 3)]}


async def test_the_end_of_one_cancels_those_that_wait_for_it_all_the_way_down(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), spec("b", after=("a",)), spec("c", after=("b",)))
    await bench.write(p.CancelTasks(None, ("a",)))
    assert await bench.states("a", "b", "c") == ["cancelled"] * 3
    (late,) = await bench.insert(spec("d", after=("a",)))
    assert late.error is not None
    assert late.error.code == "upstream_failed"


async def test_a_chain_longer_than_pythons_stack_ends_with_its_head(bench: Bench) -> None:
    names = [f"t{number}" for number in range(sys.getrecursionlimit() + 1)]
    chain = [spec(id, after=(before,)) for before, id in itertools.pairwise(names)]
    await bench.insert(spec(names[0]), *chain)
    await bench.write(p.CancelTasks(None, (names[0],)))
    ended = [ending.id for ending in bench.effects.endings]
    while await bench.write(up.DoChore()):
        ended += [ending.id for ending in bench.effects.endings]
    assert await bench.states(*names) == ["cancelled"] * len(names)
    assert ended == names


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────


async def open_job(bench: Bench, id: str = "job", **changes: Any) -> Any:
    plain = jp.OpenJob(id, "default", "/out", "input", "options", fresh=False)
    return await bench.write(msgspec.structs.replace(plain, **changes))


def line(number: int, task: TaskSpec | None = None, error: ErrorInfo | None = None) -> JobLine:
    return JobLine(number, f"custom-{number}", task=task, error=error)


async def test_lines_handed_in_twice_are_stored_once_and_come_back_in_order(
    bench: Bench,
) -> None:
    await open_job(bench)
    lines = (line(1, spec("a")), line(2, error=ErrorInfo("bad", "no")), line(3, spec("b")))
    for _ in range(2):
        assert await bench.write(jp.InsertLines("default", "job", lines, last=True)) == 3
    await bench.claim(2)
    await bench.record(success(2, text="b's"))
    ordered = jp.FetchJobLines(None, "job", 0, ordered=True, limit=9)
    assert await bench.store.query(ordered) == ((), False)
    as_ended = jp.FetchJobLines(None, "job", 0, ordered=False, limit=9)
    found, done = await bench.store.query(as_ended)
    assert ([each.line for each in found], done) == ([2, 3], False)
    await bench.claim(1)
    await bench.record(success(1, text="a's"))
    assert bench.effects.jobs == {"job"}
    found, done = await bench.store.query(ordered)
    assert ([each.line for each in found], done) == ([1, 2, 3], True)


async def test_a_job_is_taken_up_where_it_stood_and_never_mixed_with_another(
    bench: Bench,
) -> None:
    assert await open_job(bench) == jp.JobOpening("job", 0, sealed=False, resumed=False)
    await bench.write(jp.InsertLines(None, "job", (line(1, spec("a")),), last=False))
    assert await open_job(bench, "second") == jp.JobOpening("job", 1, sealed=False, resumed=True)
    assert isinstance(await open_job(bench, "second", input_hash="x"), Conflict)
    fresh = await open_job(bench, "second", input_hash="x", fresh=True)
    assert fresh == jp.JobOpening("second", 0, sealed=False, resumed=False)
    assert bench.effects.chores
    await bench.write(up.DoChore())
    assert await bench.states("a") == ["cancelled"]
    late = await bench.write(jp.InsertLines(None, "job", (line(2, spec("b")),), last=True))
    assert isinstance(late, Conflict)


async def test_a_job_is_out_of_reach_for_another_tenant(bench: Bench) -> None:
    await open_job(bench)
    lines = (line(1, spec("x", tenant="other")),)
    assert isinstance(await bench.write(jp.InsertLines("other", "job", lines, last=True)), NotFound)
    with pytest.raises(NotFound):
        await bench.store.query(jp.FetchJobLines("other", "job", 0, ordered=True, limit=9))


async def test_a_line_that_shares_a_task_ends_with_it(bench: Bench) -> None:
    await bench.insert(spec("a", prompt="x", key="k"))
    await open_job(bench)
    lines = (line(1, spec("b", prompt="x", key="k")),)
    await bench.write(jp.InsertLines(None, "job", lines, last=True))
    await bench.claim(1)
    await bench.record(success(1))
    found, done = await bench.store.query(jp.FetchJobLines(None, "job", 0, ordered=True, limit=9))
    assert done
    assert found[0].answer.task.id == "a"


# ── reading ──────────────────────────────────────────────────────────────────────────────────


async def test_pages_of_tasks_meet_without_a_gap(bench: Bench) -> None:
    await bench.insert(*(spec(id) for id in "abcde"))
    seen: list[str] = []
    cursor: int | None = None
    while True:
        page, cursor = await bench.store.query(
            p.FetchTasks(None, ListTasks(0, before=cursor, limit=2))
        )
        seen += [task.id for task in page]
        if cursor is None:
            break
    assert seen == list("edcba")


async def test_another_tenants_things_look_like_missing_ones(bench: Bench) -> None:
    await bench.insert(spec("a", tenant="theirs"))
    query = bench.store.query
    assert await query(p.FetchAnswers("ours", ("a",))) == {}
    assert await query(p.FetchTasks("ours", ListTasks(0, tenant="theirs"))) == ((), None)
    with pytest.raises(NotFound, match="no task a"):
        await query(p.FetchEvents("ours", GetEvents(0, task="a")))


async def test_the_summary_counts_what_the_effects_added_up(bench: Bench) -> None:
    counts: dict[TaskState, int] = {}

    async def note(work: Any) -> None:
        await work
        for state, change in bench.effects.counts.items():
            counts[state] = counts.get(state, 0) + change

    await note(bench.insert(*(spec(id) for id in "abc")))
    await note(bench.claim(1, 2))
    await note(bench.record(success(1)))
    await note(bench.write(p.CancelTasks(None, ("b",))))
    summary = await bench.store.query(p.FetchSummary())
    assert summary.counts == {state: count for state, count in counts.items() if count}


# ── the file ─────────────────────────────────────────────────────────────────────────────────


async def test_a_write_that_breaks_takes_back_only_itself(bench: Bench) -> None:
    await bench.insert(spec("good"))
    broken = p.InsertTasks((spec("too big", expires_at=2**70),))
    committed = await bench.store.commit([broken, p.InsertTasks((spec("later"),))], NOW)
    assert isinstance(committed.results[0], p.StoreError)
    assert committed.results[1][0].task.id == "later"
    assert await bench.states("good", "later") == ["pending", "pending"]


async def test_a_refused_write_changes_nothing(bench: Bench) -> None:
    refusal = await bench.write(jp.InsertLines(None, "no job", (line(1, spec("a")),), last=True))
    assert isinstance(refusal, AutoGLMError)
    assert await bench.store.query(p.FetchAnswers(None, ("a",))) == {}


async def test_a_commit_that_has_begun_is_seen_through_when_cancelled(bench: Bench) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await bench.store.commit([p.InsertTasks((spec("a"),))], NOW)
    assert await bench.states("a") == ["pending"]


async def test_the_file_is_ours_alone_in_wal_mode_and_synced_at_every_commit(
    bench: Bench,
) -> None:
    assert bench.path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(bench.path) as cx:
        assert cx.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer = bench.store._writer  # pyright: ignore[reportPrivateUsage]
    assert writer is not None
    async with writer.execute("PRAGMA synchronous") as cursor:
        assert await cursor.fetchone() == (2,)


async def open_error(path: Path) -> str:
    store = SqliteStore(path, by_arrival)
    with pytest.raises(p.StoreError) as caught:
        await store.open()
    return str(caught.value)


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    path.write_bytes(b"something else entirely, and long enough to have a header" * 100)
    before = path.read_bytes()
    assert "not a SQLite file" in await open_error(path)
    assert path.read_bytes() == before


async def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "queue.sqlite3"
    with sqlite3.connect(path) as cx:
        cx.execute("CREATE TABLE theirs (x)")
    cx.close()
    before = path.read_bytes()
    assert "another program" in await open_error(path)
    assert path.read_bytes() == before


async def test_a_schema_from_the_future_is_refused(bench: Bench) -> None:
    await bench.store.close()
    with sqlite3.connect(bench.path) as cx:
        cx.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    cx.close()
    assert "upgrade autoglm" in await open_error(bench.path)


async def test_a_truncated_file_is_refused_and_says_what_to_do(bench: Bench) -> None:
    await bench.insert(*(spec(str(number), prompt="x" * 500) for number in range(200)))
    await bench.store.close()
    size = bench.path.stat().st_size
    with bench.path.open("r+b") as file:
        file.truncate(size // 2 // 4096 * 4096)
    store = SqliteStore(bench.path, by_arrival)

    async def read_everything() -> None:
        await store.open()
        await store.query(p.FetchTasks(None, ListTasks(0, limit=1000)))

    with pytest.raises(p.StoreError, match="cut short"):
        await read_everything()
    await store.close()


async def test_a_full_disk_refuses_the_commit_and_keeps_what_was_there(bench: Bench) -> None:
    await bench.insert(spec("before"))
    writer = bench.store._writer  # pyright: ignore[reportPrivateUsage]
    assert writer is not None
    async with writer.execute("PRAGMA page_count") as cursor:
        row = await cursor.fetchone()
        assert row is not None
    await (await writer.execute(f"PRAGMA max_page_count = {row[0] + 2}")).close()
    with pytest.raises(p.StoreError, match="disk is full"):
        await bench.insert(*(spec(f"x{number}", prompt="x" * 4000) for number in range(50)))
    assert await bench.states("before") == ["pending"]
    await (await writer.execute("PRAGMA max_page_count = 1000000")).close()
    await bench.insert(spec("after"))
    assert await bench.states("after") == ["pending"]


# ── many at once ─────────────────────────────────────────────────────────────────────────────


async def test_a_name_that_stands_twice_in_one_commit_is_taken_once(bench: Bench) -> None:
    committed = await bench.store.commit(
        [
            p.InsertTasks((spec("a"), spec("b", prompt="x", key="k"))),
            p.InsertTasks((spec("a"), spec("c", prompt="x", key="k"), spec("d", after=("b",)))),
            p.InsertTasks((spec("a", prompt="other"), spec("e"))),
        ],
        NOW,
    )
    first, second, third = committed.results
    assert [each.duplicate for each in first] == [False, False]
    assert [each.duplicate for each in second] == [True, True, False]
    assert second[1].task == first[1].task
    assert third[0].error.code == "conflict"
    assert await bench.states("a", "b", "d", "e") == ["pending", "pending", "blocked", "pending"]
    assert committed.effects.counts == {TaskState.PENDING: 3, TaskState.BLOCKED: 1}


async def test_more_tasks_than_a_statement_takes_are_all_stored_and_answered(bench: Bench) -> None:
    count = 343  # 256 + 64 + 16 + 4 + 3 x 1: every size of statement
    specs = tuple(spec(f"t{number}") for number in range(count))
    accepted = await bench.insert(*specs)
    assert [each.task.id for each in accepted if each.task] == [each.id for each in specs]
    claimed = await bench.claim(*range(1, count + 1))
    assert [task.prompt for task in claimed] == [each.prompt for each in specs]
    recorded = await bench.record(*(success(task.seq, text=task.id) for task in claimed))
    assert recorded == count
    found = await bench.store.query(p.FetchAnswers(None, tuple(each.id for each in specs)))
    assert all(found[each.id].result.text == each.id for each in specs)


@pytest.mark.parametrize("outcome", ["succeeded", "dead", "succeeded after a failure"])
async def test_an_ending_carries_what_a_query_finds(bench: Bench, outcome: str) -> None:
    await bench.insert(spec("a", tenant="t", kind="k", key="key", priority=2, expires_at=NOW * 2))
    await bench.claim(1)
    attempt = 1
    if outcome == "succeeded after a failure":
        error = ErrorInfo("engine_error", "once")
        await bench.record(p.Outcome(1, 1, TaskState.RETRYING, error=error, charged=True))
        await bench.write(p.ReleaseDue(), NOW + 1)
        await bench.claim(1)
        attempt = 2
    dead = p.Outcome(1, attempt, TaskState.DEAD, error=ErrorInfo("bad", "no"), charged=True)
    await bench.record(dead if outcome == "dead" else success(1, attempt), now=NOW + 5)
    (ending,) = bench.effects.endings
    assert ending.answer == (await bench.store.query(p.FetchAnswers(None, ("a",))))["a"]


async def test_the_events_of_one_task_are_found_from_task_to_event_not_by_search(
    bench: Bench,
) -> None:
    await bench.insert(*(spec(f"t{number}") for number in range(9)))
    claimed = await bench.claim(*range(1, 10))
    await bench.record(*(success(task.seq) for task in claimed))
    whole, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0)))
    for after in (0, 5, 27):
        events, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0, after, "t4")))
        assert list(events) == [each for each in whole if each.task == "t4" and each.seq > after]
    with sqlite3.connect(bench.path) as cx:
        chained = cx.execute(
            "SELECT prev, (SELECT max(seq) FROM event WHERE task = e.task AND seq < e.seq)"
            " FROM event e"
        ).fetchall()
    assert all(prev == before for prev, before in chained)


async def test_the_tally_agrees_with_a_count(bench: Bench) -> None:
    await bench.insert(*(spec(f"t{number}") for number in range(6)), spec("w", after=("t0",)))
    await bench.claim(1, 2, 3)
    await bench.record(success(1), p.Outcome(2, 1, TaskState.RETRYING, charged=True))
    await bench.write(p.CancelTasks(None, ("t3", "t4")))
    summary: p.Summary = await bench.store.query(p.FetchSummary())
    with sqlite3.connect(bench.path) as cx:
        counted = cx.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall()
    assert {state.value: count for state, count in summary.counts.items()} == dict(counted)
