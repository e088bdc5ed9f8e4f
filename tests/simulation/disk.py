"""The store on a disk that can lose power: real SQLite, the real transaction bodies, run inline.

One step of the world is one transaction, with delays before and after it at which the process may
die. Now and then a commit is followed by a checkpoint, which copies the log into the database
file; the process may die in the middle of it too.

Each file has an image of what is surely on the disk. When the power goes, each sector that was
written since then is there or is not, whatever the others do, and one may be torn in the middle.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio

from actors.policy.rank import ranker
from runtime.store import protocol as p
from runtime.store.faults import Faults, as_drill
from runtime.store.opening import explain, prepare
from runtime.store.transact import answer, transact
from runtime.store.transaction import Counters
from tests.simulation.world import Universe


class InjectedFault(Exception):
    """An actor's own failure, planted."""


NORMAL, FULL = 1, 2
"""Levels of SQLite's `synchronous`."""
SECTOR_BYTES = 512
"""What a disk writes at once."""


class SimulatedStore:
    """runtime.store.protocol.Store. `mishaps` decides what a call suffers, `checkpoints` is the
    share of commits that one follows.
    """

    def __init__(
        self,
        universe: Universe,
        path: Path,
        delay_s: float,
        mishaps: Mishaps,
        checkpoints: float = 0.0,
        *,
        power_may_fail: bool = True,
        policy: str = "mlfq",
    ) -> None:
        self.path = path
        self._rng = universe.rng(f"store {path.name}")
        self._delay_s = delay_s
        self._reading_s = min(0.3, delay_s * universe.rng("reading").choice([1, 1, 30]))
        """An answer may be long out of date when it comes."""
        self._mishaps = mishaps
        self._ranking = ranker(policy)
        self._cx: sqlite3.Connection | None = None
        self._counters: Counters | None = None
        self._faults = Faults()
        self._checkpoints = checkpoints
        self._power_may_fail = power_may_fail
        self._level = 2
        """SQLite's `synchronous`: 0 syncs nothing, 1 at checkpoints, 2 each commit too."""
        self._durable_file = b""
        """What of the database file is surely on the disk."""
        self._durable_log = b""
        self._syncing: anyio.Event | None = None
        """Set when the commit under way is on the disk: nobody reads it before."""
        self._file_before: bytes | None = None
        """The database file as it was, while a checkpoint writes to it."""

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
        (self._level,) = cx.execute("PRAGMA synchronous").fetchone()
        self._durable_file = self.path.read_bytes()
        self._durable_log = self._log() if self._level >= FULL else b""

    async def close(self) -> None:
        """Nothing to do: the world closes what a process leaves open."""

    async def commit(self, writes: Sequence[p.Write], now_ms: int) -> p.Committed:
        with anyio.CancelScope(shield=True):
            self._mishaps.before_commit()
            await self._pause()
            assert self._counters is not None, "the store is not open"
            fault = self._faults.at(now_ms)
            if fault is not None:
                await self._faults.drag(fault)
            full = self._faults.full(self.cx, self._faults.at(now_ms))
            try:
                committed = transact(
                    self.cx, self._counters, writes, now_ms, self._ranking, full=full
                )
            except sqlite3.OperationalError as error:
                if not full:
                    raise
                raise as_drill(explain(self.path, error)) from error
            await self._sync()
            await self._pause()
            if self._checkpoints and self._rng.random() < self._checkpoints:
                await self._checkpoint()
            self._mishaps.strike()
            return committed
        raise AssertionError("a shielded scope was cancelled")

    async def impair(self, fault: p.Fault | None) -> None:
        self._faults.lift()
        await self._pause()
        self._faults.begin(self.cx, fault)

    async def query(self, query: p.Query) -> Any:
        self._mishaps.strike()
        await self._pause()
        if self._syncing is not None:
            await self._syncing.wait()
        found = answer(self.cx, query)
        await anyio.sleep(self._rng.uniform(0, self._reading_s))
        self._mishaps.strike()
        return found

    async def _sync(self) -> None:
        """What was committed is in the log's file, and by and by on the disk."""
        self._syncing = anyio.Event()
        await self._pause()
        if self._level >= FULL and self._power_may_fail:
            self._durable_log = self._log()
        self._syncing.set()
        self._syncing = None

    async def _checkpoint(self) -> None:
        """Sync the log, copy it into the file, sync that. The next commit starts the log anew."""
        if self._level >= NORMAL:
            self._durable_log = self._log()
        self._file_before = self.path.read_bytes()
        self.cx.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        await self._pause()
        self._file_before = None
        if self._level >= NORMAL:
            self._durable_file = self.path.read_bytes()

    def die(self, successor: Path, *, power_lost: bool) -> int:
        """What the next process will find, at `successor`. Returns how many sectors were lost."""
        file, log = self.path.read_bytes(), self._log()
        found_file, found_log = file, log
        if power_lost:
            found_file = torn(self._durable_file, file, self._rng)
            found_log = torn(self._durable_log, log, self._rng)
        elif self._file_before is not None:
            found_file = torn(self._file_before, file, self._rng)
        successor.write_bytes(found_file)
        successor.with_name(successor.name + "-wal").write_bytes(found_log)
        self.discard()
        return _differing(file, found_file) + _differing(log, found_log)

    def discard(self) -> None:
        self.cx.close()
        for path in self.path.parent.glob(f"{self.path.name}*"):
            path.unlink()

    def _log(self) -> bytes:
        log = self.path.with_name(self.path.name + "-wal")
        return log.read_bytes() if log.exists() else b""

    async def _pause(self) -> None:
        await anyio.sleep(self._rng.uniform(0, self._delay_s))


def torn(before: bytes, after: bytes, rng: random.Random) -> bytes:
    """A file on its way from `before` to `after`: any of the sectors that differ may have got
    there, the first that did not in part. What it grew by ends with the last sector written.
    """
    share = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    disk = bytearray(before)
    torn_one = False
    for at in range(0, len(after), SECTOR_BYTES):
        old, new = before[at : at + SECTOR_BYTES], after[at : at + SECTOR_BYTES]
        if old == new:
            continue
        if rng.random() >= share:
            if torn_one:
                continue
            torn_one = True
            new = new[: rng.randrange(len(new) + 1)]
        if not new:
            continue
        disk += bytes(max(0, at - len(disk)))
        disk[at : at + len(new)] = new
    return bytes(disk)


def _differing(left: bytes, right: bytes) -> int:
    """In how many sectors they differ. Not bytes: SQLite salts its log by chance."""
    if left == right:
        return 0
    places = range(0, max(len(left), len(right)), SECTOR_BYTES)
    return sum(left[at : at + SECTOR_BYTES] != right[at : at + SECTOR_BYTES] for at in places)


class Mishaps:
    """Planted failures: an actor raises at some of its awaits, the disk refuses some commits."""

    def __init__(self, universe: Universe, raises: int, refusals: int) -> None:
        rng = universe.rng("mishaps")
        self._raise_at = {rng.randrange(40 * raises) for _ in range(raises)}
        self._refuse_at = {rng.randrange(30 * refusals) for _ in range(refusals)}
        self._again = universe.rng("stubborn").choice([0, 0, 6])
        """How often whoever is struck first is struck again, at once."""
        self._victim: object = None
        self._awaits = 0
        self._commits = 0
        self.raised = 0

    def strike(self, victim: object = None) -> None:
        """At an await of an actor, `victim` its mailbox. Raises InjectedFault when it is time."""
        self._awaits += 1
        if victim is not None and victim is self._victim and self._again:
            self._again -= 1
        elif self._awaits not in self._raise_at:
            return
        self._victim = self._victim or victim
        self.raised += 1
        raise InjectedFault(f"at await {self._awaits}")

    def before_commit(self) -> None:
        self.strike()
        self._commits += 1
        if self._commits in self._refuse_at:
            self.raised += 1
            kind = p.StoreBlocked if self.raised % 2 else p.StoreError
            raise kind("the disk is full (planted)")
