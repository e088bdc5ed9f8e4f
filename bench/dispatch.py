"""What it costs to find out who is next: five million tasks of ten thousand tenants, against a
thousand of one.

The scheduler's own decisions (actors.policy.agenda) on the real store, both files in turns. A cycle
reads what the agenda wants to know, decides on 64 tasks, claims them, and settles what they took;
what it records and hands in anew, so that the backlog stays as it is, is not timed.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import anyio

from actors.policy.agenda import Agenda
from actors.policy.rules import ConfiguredRules
from autoglm.ids import Ids
from autoglm.types import Output, TaskState, Usage
from bench import report
from bench.backlog import GROUP, SMALL, STORE, built, open_store, specs
from bench.report import Figure, progress, ratio
from runtime.config import Config
from runtime.store.protocol import ClaimTasks, InsertTasks, Outcome, RecordOutcomes, Write
from runtime.store.scheduleprotocol import FetchSchedule

TENANTS: Final = 10_000
WARM_UP: Final = 100
TOOK: Final = Usage(10, 5)


class Side:
    """One store with a scheduler's knowledge of it, and how many tasks a second it dispatched."""

    def __init__(self, path: Path, tenants: int) -> None:
        self.store = open_store(path)
        self.rates: list[float] = []
        self.decisions: list[float] = []
        """Microseconds a task, of deciding alone."""
        self.looked_s = 0.0
        """What a scheduler that knows nothing takes to know all lanes."""
        self._tenants = tenants
        self._agenda = Agenda("mlfq", ConfiguredRules(Config()))
        self._ids = Ids(lambda: int(time.time() * 1000))
        self._made = 0

    async def open(self) -> None:
        await self.store.open()
        start = time.perf_counter()
        self._agenda.lost_count(())
        self._agenda.learned(await self.store.query(FetchSchedule()))
        self.looked_s = time.perf_counter() - start

    async def cycle(self) -> None:
        await self._commit(InsertTasks(specs(self._made, GROUP, self._ids, self._tenants)))
        self._made += GROUP
        began, waited = time.perf_counter(), 0.0
        seqs: tuple[int, ...] = ()
        while len(seqs) < GROUP:
            reading = self._agenda.reading_begins()
            if reading is not None:
                asked = time.perf_counter()
                found = await self.store.query(reading.query)
                waited += time.perf_counter() - asked
                self._agenda.read(reading, found.keys, found.begins)
            seqs += self._agenda.take(GROUP - len(seqs))
        asked = time.perf_counter()
        claimed = await self._commit(ClaimTasks("bench", seqs))
        waited += time.perf_counter() - asked
        self._agenda.not_claimed(set(seqs) - {task.seq for task in claimed})
        took = time.perf_counter() - began
        self.rates.append(len(claimed) / took)
        self.decisions.append((took - waited) / len(seqs) * 1e6)
        output = Output("an answer of a few words", "stop", TOOK)
        await self._commit(
            RecordOutcomes(
                tuple(
                    Outcome(task.seq, task.attempt, TaskState.SUCCEEDED, output, usage=TOOK)
                    for task in claimed
                )
            )
        )

    async def _commit(self, write: Write) -> Any:
        committed = await self.store.commit([write], int(time.time() * 1000))
        effects = committed.effects
        if not isinstance(write, ClaimTasks):
            self._agenda.moved(effects.ready, effects.left)
        (result,) = committed.results
        return result


async def alternate(small: Path, large: Path, rounds: int) -> tuple[Side, Side]:
    """Both stores in turns, after some rounds that do not count."""
    sides = (Side(small, 1), Side(large, TENANTS))
    for side in sides:
        await side.open()
    for number in range(WARM_UP + rounds):
        for side in sides:
            if number == WARM_UP:
                side.rates, side.decisions = [], []
            await side.cycle()
    for side in sides:
        await side.store.close()
    return sides


def figures(rows: int, sides: tuple[Side, Side]) -> Iterator[Figure]:
    names = (f"{SMALL:,} of one tenant", f"{rows:,} of {TENANTS:,} tenants")
    small, large = (
        Figure(f"dispatched, {name}", "tasks/s", side.rates)
        for name, side in zip(names, sides, strict=True)
    )
    yield from (small, large, ratio(large, small, 0.8, 0.9))
    for name, side in zip(names, sides, strict=True):
        yield Figure(f"deciding alone, {name}", "us/task", side.decisions, less=True)
    yield Figure("a look at all lanes", "ms", [1000 * sides[1].looked_s], less=True)


def parse() -> argparse.Namespace:
    parser = report.options("dispatch", __doc__, disk=True)
    parser.add_argument("--rows", type=int, default=5_000_000, help="pending in the big store")
    parser.add_argument("--rounds", type=int, default=500, help="of 64 tasks")
    parser.add_argument("--cache", type=Path, help="keep the big file in this folder")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds = 200_000, 100
    return arguments


def main() -> int:
    arguments = parse()
    state = report.conditions(arguments, ("aiosqlite",))
    state["sqlite"] = sqlite3.sqlite_version
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as name:
        folder = Path(name)
        cache = arguments.cache or folder / "cache"
        small, large = folder / "small", folder / "large"
        for each, rows, tenants in ((small, SMALL, 1), (large, arguments.rows, TENANTS)):
            each.mkdir(mode=0o700)
            shutil.copy(built(cache, rows, tenants), each / STORE)
        progress(f"{arguments.rounds} rounds of {GROUP} tasks")
        sides = anyio.run(alternate, small / STORE, large / STORE, arguments.rounds)
    return report.finish(arguments.output, state, list(figures(arguments.rows, sides)), {})


if __name__ == "__main__":
    sys.exit(main())
