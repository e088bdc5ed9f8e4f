"""The store on a disk that can lose power: real SQLite, the real transaction bodies, run inline.

One step of the world is one transaction, with delays before and after it at which the process may
die. When the power goes, what was not synced of the write-ahead log is cut at a random byte. The
log is never checkpointed here: the database file stays as it was made, so the log is all there is
to lose.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from actors.policy.rank import ranker
from runtime.store import protocol as p
from runtime.store.opening import prepare
from runtime.store.sqlite import answer, transact
from runtime.store.transaction import Counters
from tests.simulation.world import Universe


class InjectedFault(Exception):
    """An actor's own failure, planted."""


class SimulatedStore:
    """runtime.store.protocol.Store. `mishaps` decides what a call suffers."""

    def __init__(self, universe: Universe, path: Path, delay_s: float, mishaps: Mishaps) -> None:
        self.path = path
        self._rng = universe.rng(f"store {path.name}")
        self._delay_s = delay_s
        self._mishaps = mishaps
        self._rank_of = ranker("priority")
        self._cx: sqlite3.Connection | None = None
        self._counters: Counters | None = None
        self._synced_bytes = 0
        self._syncs = True
        """Whether each commit reaches the disk."""

    @property
    def cx(self) -> sqlite3.Connection:
        assert self._cx is not None, "the store is not open"
        return self._cx

    async def open(self) -> None:
        self.open_now()

    def open_now(self) -> None:
        cx = self._cx = sqlite3.connect(self.path, isolation_level=None)
        cx.execute("PRAGMA wal_autocheckpoint = 0")
        self._counters = prepare(cx, self.path)
        (level,) = cx.execute("PRAGMA synchronous").fetchone()
        self._syncs = level >= 2
        self._synced_bytes = self._wal_bytes() if self._syncs else 0

    async def close(self) -> None:
        """Nothing to do: the world closes what a process leaves open."""

    async def commit(self, writes: Sequence[p.Write], now_ms: int) -> p.Committed:
        with anyio.CancelScope(shield=True):
            self._mishaps.before_commit()
            await self._pause()
            assert self._counters is not None, "the store is not open"
            committed = transact(self.cx, self._counters, writes, now_ms, self._rank_of)
            if self._syncs:
                self._synced_bytes = self._wal_bytes()
            await self._pause()
            self._mishaps.strike()
            return committed
        raise AssertionError("a shielded scope was cancelled")

    async def query(self, query: p.Query) -> Any:
        self._mishaps.strike()
        await self._pause()
        found = answer(self.cx, query)
        await self._pause()
        self._mishaps.strike()
        return found

    def die(self, successor: Path, *, power_lost: bool) -> int:
        """What the next process will find, at `successor`. Returns how many bytes were lost."""
        shutil.copy(self.path, successor)
        wal = self._wal.read_bytes() if self._wal.exists() else b""
        kept = len(wal)
        if power_lost:
            kept = self._rng.randint(min(self._synced_bytes, len(wal)), len(wal))
        successor.with_name(successor.name + "-wal").write_bytes(wal[:kept])
        self.discard()
        return len(wal) - kept

    def discard(self) -> None:
        self.cx.close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()

    @property
    def _wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def _wal_bytes(self) -> int:
        return self._wal.stat().st_size if self._wal.exists() else 0

    async def _pause(self) -> None:
        await anyio.sleep(self._rng.uniform(0, self._delay_s))


class Mishaps:
    """Planted failures: an actor raises at some of its awaits, the disk refuses some commits."""

    def __init__(self, universe: Universe, raises: int, refusals: int) -> None:
        rng = universe.rng("mishaps")
        self._raise_at = {rng.randrange(40 * raises) for _ in range(raises)}
        self._refuse_at = {rng.randrange(30 * refusals) for _ in range(refusals)}
        self._awaits = 0
        self._commits = 0
        self.raised = 0

    def strike(self) -> None:
        """At an await of an actor. Raises InjectedFault when it is time."""
        self._awaits += 1
        if self._awaits in self._raise_at:
            self.raised += 1
            raise InjectedFault(f"at await {self._awaits}")

    def before_commit(self) -> None:
        self.strike()
        self._commits += 1
        if self._commits in self._refuse_at:
            self.raised += 1
            kind = p.StoreBlocked if self.raised % 2 else p.StoreError
            raise kind("the disk is full (planted)")
