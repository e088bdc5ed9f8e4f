"""Faults of the disk for failure drills: made in the store itself, and lifted by themselves.

A slow disk is a pause before each commit. A full one is SQLite's own: the file may not grow, and
each transaction is made to need one page more than there are, so SQLite raises SQLITE_FULL at its
end and all of it is rolled back. Nothing is written to the disk for it. The store looks at the
time at each commit, so a fault ends with nobody left to lift it.
"""

from __future__ import annotations

import sqlite3

import anyio

from runtime.store.protocol import Fault, StoreBlocked, StoreError

FREE_BYTES_MAX = 64 * 1024 * 1024
"""Free room inside the file that a full disk has to use up, in memory, at each commit."""

_PAGES_MAX = 2**32 - 2
"""SQLite's own limit."""


class Faults:
    """The fault of one store, if any."""

    def __init__(self) -> None:
        self._fault: Fault | None = None
        self._lifted = anyio.Event()
        self._closed = False
        """The file may not grow: a setting of the writing connection, gone when that ends."""

    def begin(self, cx: sqlite3.Connection, fault: Fault | None) -> None:
        """On the writing connection. Raises StoreError for a disk that can't be filled."""
        self.full(cx, fault=None)
        if fault is not None and fault.full:
            _close_file(cx)
            self._closed = True
        self._fault = fault
        self._lifted = anyio.Event()

    def lift(self) -> None:
        """At once, but for the file, which is opened again before the next commit."""
        self._fault = None
        self._lifted.set()

    def at(self, now_ms: int) -> Fault | None:
        """The fault at that time; one whose time is over is forgotten."""
        if self._fault is not None and now_ms >= self._fault.until_ms:
            self.lift()
        return self._fault

    async def drag(self, fault: Fault) -> None:
        """As long as a commit takes longer, or until the fault is lifted."""
        with anyio.move_on_after(fault.slow_ms / 1000):
            await self._lifted.wait()

    def full(self, cx: sqlite3.Connection, fault: Fault | None) -> bool:
        """Whether the disk is full, on the writing connection: without a `fault` it is not."""
        if self._closed and fault is None:
            cx.execute(f"PRAGMA max_page_count = {_PAGES_MAX}").fetchall()
            self._closed = False
        return self._closed


def _close_file(cx: sqlite3.Connection) -> None:
    """Let the file grow no more."""
    free_bytes = _pragma(cx, "freelist_count") * _pragma(cx, "page_size")
    if free_bytes > FREE_BYTES_MAX:
        raise StoreError(
            f"the store has {free_bytes} bytes of free room inside, which it would use first;"
            f" a full disk can be rehearsed with {FREE_BYTES_MAX} at the most"
        )
    cx.execute(f"PRAGMA max_page_count = {_pragma(cx, 'page_count')}").fetchall()


def use_up(cx: sqlite3.Connection) -> None:
    """Ask for more pages than are free. SQLite raises SQLITE_FULL while the file is closed."""
    free_bytes = _pragma(cx, "freelist_count") * _pragma(cx, "page_size")
    cx.execute("CREATE TABLE ballast (body BLOB)")
    cx.execute("INSERT INTO ballast VALUES (zeroblob(?))", (free_bytes,))
    raise AssertionError("a closed file has grown")


def as_drill(error: StoreError) -> StoreError:
    """The same, for whoever might think that it is real."""
    if isinstance(error, StoreBlocked):
        return StoreBlocked(f"{error}; this is a drill and passes by itself")
    return error


def _pragma(cx: sqlite3.Connection, name: str) -> int:
    (value,) = cx.execute(f"PRAGMA {name}").fetchone()
    return int(value)
