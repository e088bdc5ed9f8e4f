"""What five million pending tasks cost, against a thousand: nothing, if the indexes do their work.

    store     insert 64, claim 64 (finding them included), record 64: the real SqliteStore on both
              files in turns, one commit each
    memory    of the server process with the backlog behind it and its engine full
    restart   `kill -9`, then from the start of the process until the engine runs something

The big file is built through the real store. With --cache it is kept there by its schema and its
number of rows, and each run works on a copy. After a kill the file is still in the page cache: a
restart after a power cut is slower by the reading.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import anyio
from rich.console import Console
from rich.progress import track

from actors.policy.rank import ranker
from autoglm import Client
from autoglm.ids import Ids
from autoglm.retry import Patience
from autoglm.types import Message, Output, Sampling, TaskSpec, TaskState, Usage
from bench import report
from bench.load import START_MS, prompt
from bench.report import Figure, progress, ratio
from bench.served import memory_mb, simulated
from runtime.store.protocol import ClaimTasks, InsertTasks, Outcome, RecordOutcomes
from runtime.store.scheduleprotocol import FetchBacklog, LaneRead
from runtime.store.sqlite import SqliteStore
from tests.system.real import Server

STORE: Final = "queue.sqlite3"
SMALL: Final = 1_000
GROUP: Final = 64
ROWS_IN_COMMIT: Final = 20_000
TASKS_PER_MS: Final = 20
PRIORITIES: Final = 10
WARM_UP: Final = 10
SETTLE_S: Final = 2.0
DISPATCH_TIMEOUT_S: Final = 120
ENGINE: Final = ("load_s=0", "step_ms=1000", "prefill_tok_s=0", "output_tokens=1000")
"""So slow that what it runs stays running and the backlog stays as it is."""
LANE: Final = ("normal", "default")
OPERATIONS: Final = ("insert", "claim", "record")
Times = dict[str, list[float]]


def specs(first: int, count: int, ids: Ids, tenants: int = 1) -> tuple[TaskSpec, ...]:
    """So many tasks, of the tenants in turns; one alone is the default one."""
    return tuple(
        TaskSpec(
            ids.mint(),
            (Message("user", prompt(number)),),
            sampling=Sampling(max_tokens=16),
            tenant=LANE[1] if tenants == 1 else f"tenant {number % tenants}",
            priority=number % PRIORITIES,
        )
        for number in range(first, first + count)
    )


def open_store(path: Path) -> SqliteStore:
    return SqliteStore(path, ranker("priority"))


async def build(path: Path, rows: int, tenants: int) -> None:
    """A store with `rows` pending tasks, through the real one."""
    store, made = open_store(path), 0
    ids = Ids(lambda: START_MS + made // TASKS_PER_MS, random.Random(rows).getrandbits)
    await store.open()
    pieces = range(0, rows, ROWS_IN_COMMIT)
    console = Console(stderr=True)
    for made in track(pieces, f"{rows:,} tasks", console=console, disable=not rows):
        write = InsertTasks(specs(made, min(ROWS_IN_COMMIT, rows - made), ids, tenants))
        await store.commit([write], START_MS + made // TASKS_PER_MS)
    await store.close()


def built(cache: Path, rows: int, tenants: int = 1) -> Path:
    """The file with `rows` pending tasks of this schema, made unless it is there."""
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="bench-") as folder:
        empty, part = Path(folder) / "empty.sqlite3", Path(folder) / "part.sqlite3"
        anyio.run(build, empty, 0, 1)
        with sqlite3.connect(empty) as cx:
            schema = str(cx.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall())
        name = (
            f"backlog-{hashlib.sha256(schema.encode()).hexdigest()[:12]}-{rows}-{tenants}.sqlite3"
        )
        if not (cache / name).exists():
            anyio.run(build, part, rows, tenants)
            part.rename(cache / name)
    return cache / name


class Side:
    """One of the two stores, and what its operations took, in milliseconds."""

    def __init__(self, path: Path) -> None:
        self.store = open_store(path)
        self.times: Times = {name: [] for name in OPERATIONS}
        self._ids = Ids(lambda: int(time.time() * 1000))
        self._made = 0

    async def cycle(self) -> None:
        """Insert, claim and record 64: afterwards as many are pending as before."""
        store, times = self.store, self.times
        write = InsertTasks(specs(self._made, GROUP, self._ids))
        self._made += GROUP
        now_ms = int(time.time() * 1000)
        start = time.perf_counter()
        await store.commit([write], now_ms)
        inserted = time.perf_counter()
        (keys,) = (await store.query(FetchBacklog((LaneRead(LANE, None),), GROUP))).keys
        claim = ClaimTasks("bench", tuple(seq for _, seq in keys))
        (claimed,) = (await store.commit([claim], now_ms)).results
        found = time.perf_counter()
        output = Output("an answer of a few words", "stop", Usage(10, 5))
        outcomes = tuple(
            Outcome(task.seq, task.attempt, TaskState.SUCCEEDED, output) for task in claimed
        )
        recording = time.perf_counter()
        (recorded,) = (await store.commit([RecordOutcomes(outcomes)], now_ms)).results
        end = time.perf_counter()
        assert recorded == GROUP, f"{recorded} of {GROUP} recorded"
        spans = (inserted - start, found - inserted, end - recording)
        for name, span in zip(OPERATIONS, spans, strict=True):
            times[name].append(span * 1000)


async def alternate(small: Path, large: Path, rounds: int) -> tuple[Times, Times]:
    """Both stores in turns, after a few rounds that do not count."""
    sides = (Side(small), Side(large))
    for side in sides:
        await side.store.open()
    for number in range(WARM_UP + rounds):
        for side in sides:
            if number == WARM_UP:
                side.times = {name: [] for name in OPERATIONS}
            await side.cycle()
    for side in sides:
        await side.store.close()
    return sides[0].times, sides[1].times


async def first_dispatch(socket: Path) -> None:
    """Until the engine runs something."""
    patience = Patience(window_s=DISPATCH_TIMEOUT_S, first_s=0.005, cap_s=0.005)
    async with asyncio.timeout(DISPATCH_TIMEOUT_S), Client(socket, patience=patience) as client:
        while not any(each.running for each in (await client.status()).engines):  # noqa: ASYNC110
            await anyio.sleep(0.005)


def serve(folder: Path, kills: int) -> tuple[list[float], list[float]]:
    """Memory in MB, and seconds to the first dispatch, of each start after a kill."""
    server = Server(folder, *simulated(ENGINE))
    memory: list[float] = []
    seconds: list[float] = []
    for number in range(kills + 1):
        began = time.perf_counter()
        server.start()
        anyio.run(first_dispatch, server.socket)
        taken = time.perf_counter() - began
        if number:
            seconds.append(taken)
        time.sleep(SETTLE_S)
        memory.append(memory_mb(server.pid))
        progress(f"  dispatched after {taken:.2f} s, {memory[-1]:.0f} MB")
        server.kill()
    return memory, seconds


def figures(rows: int, times: tuple[Times, Times], served: list[Any]) -> Iterator[Figure]:
    names = (f"{SMALL:,}", f"{rows:,}")
    for operation in OPERATIONS:
        small, large = (
            Figure(f"{operation} {GROUP} at {name}", "ms", each[operation], less=True)
            for name, each in zip(names, times, strict=True)
        )
        yield from (small, large, ratio(large, small, 1.5, 1.15, less=True))
    for (memory, seconds), name, targets in zip(
        served, names, ((None,) * 4, (300, 150, 5, 1)), strict=True
    ):
        yield Figure(f"memory of the server at {name}", "MB", memory, *targets[:2], less=True)
        yield Figure(f"kill to first dispatch at {name}", "s", seconds, *targets[2:], less=True)


def parse() -> argparse.Namespace:
    parser = report.options("backlog", __doc__, disk=True)
    parser.add_argument("--rows", type=int, default=5_000_000, help="pending in the big store")
    parser.add_argument("--rounds", type=int, default=200, help="of insert, claim, record")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--cache", type=Path, help="keep the big file in this folder")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds, arguments.kills = 200_000, 50, 1
    return arguments


def main() -> int:
    arguments = parse()
    state = report.conditions(arguments, ("aiosqlite",))
    state["sqlite"] = sqlite3.sqlite_version
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-"))
        )
        cache = arguments.cache or folder / "cache"
        small, large = folder / "small", folder / "large"
        for each, rows in ((small, SMALL), (large, arguments.rows)):
            each.mkdir(mode=0o700)
            shutil.copy(built(cache, rows), each / STORE)
        state["bytes_of_the_big_store"] = (large / STORE).stat().st_size
        progress(f"{arguments.rounds} rounds of insert, claim, record")
        times = anyio.run(alternate, small / STORE, large / STORE, arguments.rounds)
        served: list[Any] = []
        for each in (small, large):
            progress(f"a server on the {each.name} store")
            served.append(serve(each, arguments.kills))
    all_figures = list(figures(arguments.rows, times, served))
    return report.finish(arguments.output, state, all_figures, {})


if __name__ == "__main__":
    sys.exit(main())
