"""The store on SQLite: WAL, fsync at every commit, through aiosqlite.

Two connections: one writes, one reads, each on its own thread, so that a long listing never holds
up a commit. `synchronous=FULL` because an acknowledged task must survive power loss; with commits
grouped, NORMAL gains next to nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import anyio

from autoglm.errors import AutoGLMError
from runtime.store import (
    backlog,
    breakers,
    census,
    chores,
    deadletters,
    endings,
    execution,
    intake,
    pruning,
    queues,
    reading,
)
from runtime.store import deadprotocol as dead
from runtime.store import protocol as p
from runtime.store import queueprotocol as qp
from runtime.store.faults import Faults, as_drill, use_up
from runtime.store.opening import (
    check_pages,
    create,
    explain,
    inspect,
    mark,
    mark_of,
    prepare,
    read_only,
    unmark,
    unusable,
)
from runtime.store.transaction import Counters, RankOf, Transaction

log = logging.getLogger("autoglm.store")
T = TypeVar("T")

STORE_NAME = "queue.sqlite3"
"""In the data folder."""

_WRITES: dict[type[p.Write], Callable[[Transaction, Any], Any]] = {
    p.OpenJob: intake.open_job,
    p.InsertLines: intake.insert_lines,
    p.ClaimTasks: execution.claim_tasks,
    p.RecordOutcomes: execution.record_outcomes,
    p.PutBack: execution.put_back,
    p.CancelTasks: endings.cancel_tasks,
    p.ReleaseDue: endings.release_due,
    p.PruneTasks: pruning.prune_tasks,
    p.PruneEvents: pruning.prune_events,
    p.DoChore: chores.do_chore,
    dead.RetryDead: deadletters.retry_dead,
    dead.DiscardDead: deadletters.discard_dead,
    dead.EditDead: deadletters.edit_dead,
    p.RememberBreaker: breakers.remember_breaker,
    qp.BeginServing: queues.begin_serving,
    qp.SetQueue: queues.set_queue,
}
_WRITES_TOGETHER: dict[type[p.Write], Callable[[Transaction, Any], list[Any]]] = {
    p.InsertTasks: intake.insert_tasks,
}
"""Bodies that take all the writes of their kind that stand together, and give a result for each."""
_QUERIES: dict[type[p.Query], Callable[[sqlite3.Connection, Any], Any]] = {
    p.FetchAnswers: reading.fetch_answers,
    p.FetchTasks: reading.fetch_tasks,
    p.FetchEvents: reading.fetch_events,
    p.FetchJobLines: reading.fetch_job_lines,
    p.FetchBacklog: backlog.fetch_backlog,
    p.FetchSchedule: backlog.fetch_schedule,
    p.FetchSummary: reading.fetch_summary,
    dead.FetchDeadLetters: deadletters.fetch_dead_letters,
    dead.FetchDeadLetter: deadletters.fetch_dead_letter,
    p.FetchBreakers: breakers.fetch_breakers,
    census.TakeCensus: census.take_census,
}

_COUNT = """
INSERT INTO tally VALUES (?, ?) ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks
"""
"""Counted as they change: counting five million rows takes seconds that a start does not have."""


class SqliteStore:
    """One file; this process is its only writer (the server holds the folder's lock)."""

    def __init__(self, path: Path, rank_of: RankOf) -> None:
        self.path = path
        self._rank_of = rank_of
        self._writer: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._counters: Counters | None = None
        self._faults = Faults()
        self.ended_uncleanly = False
        """Whether whoever had the file open before did not close it."""

    async def open(self) -> None:
        inspect(self.path)
        self.ended_uncleanly = mark_of(self.path).exists()
        if not self.path.exists():
            create(self.path)
        try:
            self._reader = await aiosqlite.connect(
                read_only(self.path), uri=True, isolation_level=None
            )
            await _on_thread(
                self._reader, lambda cx: cx.execute("PRAGMA schema_version").fetchall()
            )
            self._writer = await aiosqlite.connect(self.path, isolation_level=None)
            self._counters = await _on_thread(self._writer, lambda cx: prepare(cx, self.path))
            mark(self.path)
        except sqlite3.Error as error:
            await self._let_go(untouched=True)
            raise explain(self.path, error) from error
        except p.StoreError:
            await self._let_go(untouched=True)
            raise

    async def close(self, *, untouched: bool = False) -> None:
        """`untouched`: as a dying process would, without moving the log into the file."""
        if self._writer is not None and not untouched:
            unmark(self.path)
        await self._let_go(untouched=untouched)

    async def check(self) -> None:
        """Read the whole file, on a thread and a connection of its own. Raises StoreError."""
        try:
            connection = await aiosqlite.connect(read_only(self.path), uri=True)
            try:
                await _on_thread(connection, lambda cx: check_pages(cx, self.path))
            finally:
                with anyio.CancelScope(shield=True):
                    await connection.interrupt()  # who is cancelled meanwhile must not wait
                    await connection.close()
        except sqlite3.Error as error:
            raise explain(self.path, error) from error

    async def _let_go(self, *, untouched: bool = False) -> None:
        # The last to leave moves the log into the file; the reader can't.
        order = (self._writer, self._reader) if untouched else (self._reader, self._writer)
        with anyio.CancelScope(shield=True):
            for connection in order:
                if connection is not None:
                    await connection.close()
        self._reader = self._writer = None

    async def commit(self, writes: Sequence[p.Write], now_ms: int) -> p.Committed:
        writer, counters, rank_of = self._writer, self._counters, self._rank_of
        assert writer is not None, "the store is not open"
        assert counters is not None, "the store is not open"
        fault = self._faults.at(now_ms)
        if fault is not None:
            await self._faults.drag(fault)

        def body(cx: sqlite3.Connection) -> p.Committed:
            full = self._faults.full(cx, self._faults.at(now_ms))
            return transact(cx, counters, writes, now_ms, rank_of, full=full)

        try:
            # A commit that has begun is seen through: who is cancelled meanwhile learns it later.
            with anyio.CancelScope(shield=True):
                return await _on_thread(writer, body)
        except sqlite3.Error as error:
            told = explain(self.path, error)
            raise (as_drill(told) if fault else told) from error
        raise AssertionError("a shielded scope was cancelled")

    async def query(self, query: p.Query) -> Any:
        assert self._reader is not None, "the store is not open"
        try:
            return await _on_thread(self._reader, lambda cx: answer(cx, query))
        except sqlite3.Error as error:
            raise explain(self.path, error) from error

    async def impair(self, fault: p.Fault | None) -> None:
        writer = self._writer
        assert writer is not None, "the store is not open"
        self._faults.lift()
        try:
            with anyio.CancelScope(shield=True):
                await _on_thread(writer, lambda cx: self._faults.begin(cx, fault))
        except sqlite3.Error as error:
            raise explain(self.path, error) from error


async def _on_thread(
    connection: aiosqlite.Connection, body: Callable[[sqlite3.Connection], T]
) -> T:
    """Run `body` whole on the connection's thread.

    aiosqlite has no public call for this; its version is pinned and a test holds it to this.
    """
    return await connection._execute(lambda: body(connection._conn))  # pyright: ignore


def answer(cx: sqlite3.Connection, query: p.Query) -> Any:
    """The answer to a query. Raises NotFound."""
    return _QUERIES[type(query)](cx, query)


def transact(
    cx: sqlite3.Connection,
    counters: Counters,
    writes: Sequence[p.Write],
    now_ms: int,
    rank_of: RankOf,
    *,
    full: bool = False,
) -> p.Committed:
    """All of `writes` in one transaction; if one breaks, again with a savepoint around each.

    `full`: the disk is, for a drill (runtime.store.faults).
    """
    try:
        return _attempt(cx, counters, writes, now_ms, rank_of, savepoints=False, full=full)
    except Exception as error:
        if unusable(error):
            raise  # the disk or the file: a second try would only hide it
        log.exception("a write failed in a group commit; trying each by itself")
        return _attempt(cx, counters, writes, now_ms, rank_of, savepoints=True, full=full)


def _attempt(
    cx: sqlite3.Connection,
    counters: Counters,
    writes: Sequence[p.Write],
    now_ms: int,
    rank_of: RankOf,
    *,
    savepoints: bool,
    full: bool,
) -> p.Committed:
    results: list[Any] = []
    merged = p.Effects()
    cx.execute("BEGIN IMMEDIATE")
    try:
        for kind, together in _groups(writes, one_by_one=savepoints):
            tx = Transaction(cx, counters, now_ms, rank_of)
            if savepoints:
                cx.execute("SAVEPOINT one")
            try:
                results += _carry_out(tx, kind, together)
                tx.write_events()
            except AutoGLMError as refusal:
                assert len(together) == 1, "one refusal for many writes"
                results.append(refusal)  # raised before anything was changed
            except Exception as error:
                if not savepoints or unusable(error):
                    raise
                cx.execute("ROLLBACK TO one")
                results.append(p.StoreError(f"{kind.__name__} failed: {error}"))
            else:
                _merge(merged, tx.effects)
            if savepoints:
                cx.execute("RELEASE one")
        cx.executemany(_COUNT, merged.counts.items())
        if full:
            use_up(cx)
        cx.execute("COMMIT")
    except BaseException:
        if cx.in_transaction:
            cx.execute("ROLLBACK")
        raise
    return p.Committed(tuple(results), merged)


def _groups(
    writes: Sequence[p.Write], *, one_by_one: bool
) -> Iterator[tuple[type[p.Write], list[p.Write]]]:
    """The writes in order, those of one kind together where their body takes many."""
    for kind, together in groupby(writes, type):
        if kind in _WRITES_TOGETHER and not one_by_one:
            yield kind, list(together)
        else:
            for write in together:
                yield kind, [write]


def _carry_out(tx: Transaction, kind: type[p.Write], writes: list[p.Write]) -> list[Any]:
    if kind in _WRITES_TOGETHER:
        return _WRITES_TOGETHER[kind](tx, writes)
    return [_WRITES[kind](tx, write) for write in writes]


def _merge(into: p.Effects, more: p.Effects) -> None:
    for lane, keys in more.ready.items():
        into.ready.setdefault(lane, []).extend(keys)
    into.left += more.left
    into.endings += more.endings
    into.stopped += more.stopped
    into.jobs |= more.jobs
    into.chores |= more.chores
    into.queues.update(more.queues)
    for state, change in more.counts.items():
        into.counts[state] = into.counts.get(state, 0) + change
    due = [at for at in (into.next_due_ms, more.next_due_ms) if at is not None]
    into.next_due_ms = min(due, default=None)
