"""The store on SQLite: WAL, fsync at every commit, through aiosqlite.

Two connections: one writes, one reads, each on its own thread, so that a long listing never holds
up a commit. `synchronous=FULL` because an acknowledged task must survive power loss; with commits
grouped, NORMAL gains next to nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import anyio

from runtime.store import protocol as p
from runtime.store.faults import Faults, as_drill
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
)
from runtime.store.transact import answer, transact
from runtime.store.transaction import Counters, Ranking

log = logging.getLogger("autoglm.store")
T = TypeVar("T")

STORE_NAME = "queue.sqlite3"
"""In the data folder."""


class SqliteStore:
    """One file; this process is its only writer (the server holds the folder's lock)."""

    def __init__(self, path: Path, ranking: Ranking) -> None:
        self.path = path
        self._ranking = ranking
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
        writer, counters, ranking = self._writer, self._counters, self._ranking
        assert writer is not None, "the store is not open"
        assert counters is not None, "the store is not open"
        fault = self._faults.at(now_ms)
        if fault is not None:
            await self._faults.drag(fault)

        def body(cx: sqlite3.Connection) -> p.Committed:
            full = self._faults.full(cx, self._faults.at(now_ms))
            return transact(cx, counters, writes, now_ms, ranking, full=full)

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
