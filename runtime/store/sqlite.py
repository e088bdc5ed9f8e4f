"""The store on SQLite: WAL, fsync at every commit, through aiosqlite.

Two connections: one writes, one reads, each on its own thread, so that a long listing never holds
up a commit. `synchronous=FULL` because an acknowledged task must survive power loss; with commits
grouped, NORMAL gains next to nothing.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import anyio

from autoglm.errors import AutoGLMError
from runtime.store import chores, endings, execution, intake, migrations, pruning, reading
from runtime.store import protocol as p
from runtime.store.transaction import Counters, RankOf, Transaction

log = logging.getLogger("autoglm.store")
T = TypeVar("T")

APPLICATION_ID = 0x41474C4D  # "AGLM", in the file's header
SCHEMA_VERSION = 2

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
    p.FetchBacklog: reading.fetch_backlog,
    p.FetchSummary: reading.fetch_summary,
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

    async def open(self) -> None:
        try:
            self._writer = await aiosqlite.connect(self.path, isolation_level=None)
            self._counters = await _on_thread(self._writer, lambda cx: prepare(cx, self.path))
            self._reader = await aiosqlite.connect(self.path, isolation_level=None)
            await _on_thread(self._reader, lambda cx: cx.execute("PRAGMA query_only = ON"))
        except sqlite3.Error as error:
            await self.close()
            raise p.StoreError(_explain(self.path, error)) from error
        except p.StoreError:
            await self.close()
            raise

    async def close(self) -> None:
        with anyio.CancelScope(shield=True):
            for connection in (self._reader, self._writer):
                if connection is not None:
                    await connection.close()
        self._reader = self._writer = None

    async def commit(self, writes: Sequence[p.Write], now_ms: int) -> p.Committed:
        writer, counters, rank_of = self._writer, self._counters, self._rank_of
        assert writer is not None, "the store is not open"
        assert counters is not None, "the store is not open"
        try:
            # A commit that has begun is seen through: who is cancelled meanwhile learns it later.
            with anyio.CancelScope(shield=True):
                return await _on_thread(
                    writer, lambda cx: transact(cx, counters, writes, now_ms, rank_of)
                )
        except sqlite3.Error as error:
            raise p.StoreError(_explain(self.path, error)) from error
        raise AssertionError("a shielded scope was cancelled")

    async def query(self, query: p.Query) -> Any:
        assert self._reader is not None, "the store is not open"
        try:
            return await _on_thread(self._reader, lambda cx: answer(cx, query))
        except sqlite3.Error as error:
            raise p.StoreError(_explain(self.path, error)) from error


async def _on_thread(
    connection: aiosqlite.Connection, body: Callable[[sqlite3.Connection], T]
) -> T:
    """Run `body` whole on the connection's thread.

    aiosqlite has no public call for this; its version is pinned and a test holds it to this.
    """
    return await connection._execute(lambda: body(connection._conn))  # pyright: ignore


def prepare(cx: sqlite3.Connection, path: Path) -> Counters:
    """Make or check the file. Raises StoreError for one that is not ours or is from the future."""
    (application,) = cx.execute("PRAGMA application_id").fetchone()
    (version,) = cx.execute("PRAGMA user_version").fetchone()
    (objects,) = cx.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if objects and application != APPLICATION_ID:
        raise p.StoreError(f"{path} is a SQLite file of another program; nothing was changed")
    if version > SCHEMA_VERSION:
        raise p.StoreError(
            f"{path} was written by a newer autoglm (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); upgrade autoglm"
        )
    if cx.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise p.StoreError(f"{path}: this file system can't hold a write-ahead log")
    cx.execute("PRAGMA synchronous = FULL")
    cx.execute("PRAGMA foreign_keys = OFF")
    cx.execute("PRAGMA busy_timeout = 5000")
    cx.execute("PRAGMA temp_store = MEMORY")
    if not objects:
        schema = files("runtime.store").joinpath("schema.sql").read_text()
        cx.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; {schema} COMMIT;"
        )
    elif version < SCHEMA_VERSION:
        migrations.migrate(cx, path, version, SCHEMA_VERSION)
    os.chmod(path, 0o600)  # noqa: PTH101
    return Counters(cx)


def answer(cx: sqlite3.Connection, query: p.Query) -> Any:
    """The answer to a query. Raises NotFound."""
    return _QUERIES[type(query)](cx, query)


def transact(
    cx: sqlite3.Connection,
    counters: Counters,
    writes: Sequence[p.Write],
    now_ms: int,
    rank_of: RankOf,
) -> p.Committed:
    """All of `writes` in one transaction; if one breaks, again with a savepoint around each."""
    try:
        return _attempt(cx, counters, writes, now_ms, rank_of, savepoints=False)
    except sqlite3.OperationalError:
        raise  # the disk or the file: a second try would only hide it
    except Exception:
        log.exception("a write failed in a group commit; trying each by itself")
        return _attempt(cx, counters, writes, now_ms, rank_of, savepoints=True)


def _attempt(
    cx: sqlite3.Connection,
    counters: Counters,
    writes: Sequence[p.Write],
    now_ms: int,
    rank_of: RankOf,
    *,
    savepoints: bool,
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
                results.append(refusal)  # raised before anything was changed
            except Exception as error:
                if not savepoints:
                    raise
                cx.execute("ROLLBACK TO one")
                results.append(p.StoreError(f"{kind.__name__} failed: {error}"))
            else:
                _merge(merged, tx.effects)
            if savepoints:
                cx.execute("RELEASE one")
        cx.executemany(_COUNT, merged.counts.items())
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
    into.ready += more.ready
    into.endings += more.endings
    into.stopped += more.stopped
    into.jobs |= more.jobs
    into.chores |= more.chores
    for state, change in more.counts.items():
        into.counts[state] = into.counts.get(state, 0) + change
    due = [at for at in (into.next_due_ms, more.next_due_ms) if at is not None]
    into.next_due_ms = min(due, default=None)


def _explain(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "")
    advice = {
        "SQLITE_NOTADB": "it is not a SQLite file; move it away or give another --data-dir",
        "SQLITE_CORRUPT": "it is damaged; restore a backup or give another --data-dir",
        "SQLITE_CANTOPEN": "it can't be opened; check the folder and its permissions",
        "SQLITE_READONLY": "it can't be written; check its permissions",
        "SQLITE_FULL": "the disk is full; free some space",
        "SQLITE_IOERR_WRITE": "it can't be written to disk; is the disk full?",
        "SQLITE_BUSY": "another program holds it; stop that program",
    }.get(name, str(error))
    return f"the store {path}: {advice}"
