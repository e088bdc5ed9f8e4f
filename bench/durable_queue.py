"""What the durable queue does in a second: real command, real socket, SQLite that syncs to disk.

    submit      durable submissions, 32 connections with 16 in flight each, against a raw group
                commit of the very same rows through aiosqlite, 512 rows a transaction
    serial      one connection that waits for each submission, against raw commits of one
    open loop   submissions at a fixed rate, whatever the server does; latency from when each
                was due
    whole life  submitted, run, recorded, answered: 512 in flight, against Huey and SAQ with the
                same durability (each goes unmeasured when it is not installed)

The engine is the simulated one without delays, and for submissions it never comes up, so that
nothing is dispatched. Every round takes fresh folders, and all legs take turns. At the end of each
leg the event log is read through the client: every task is there once, and succeeded once.
Server time is that of the server's and the engine's processes, user and system.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import aiosqlite
import anyio

from actors.policy.rank import ranker
from autoglm.types import TaskState
from bench import report
from bench.load import task_ids
from bench.peers import NOT_INSTALLED, PEERS
from bench.report import Figure, percentile, progress, ratio
from bench.served import INSTANT, PARKED, cpu_seconds, load, reached, simulated
from runtime.store.sqlite import SqliteStore
from tests.system.real import Server

CONNECTIONS: Final = 32
IN_FLIGHT: Final = 16
LIFE_CONNECTIONS: Final = 16
LIFE_IN_FLIGHT: Final = 32
SLOTS: Final = 512
ROWS_IN_COMMIT: Final = 512
Leg = dict[str, Any]


class Bench:
    """The legs, each in a fresh folder below `where`, which must be on a real disk."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._options = arguments
        self._where: Path = arguments.folder
        self._rows: dict[str, list[tuple[Any, ...]]] = {}
        """Of the last submission leg, by table: what the raw leg inserts."""

    def submissions(self) -> Leg:
        """The closed loop, then serial, then the open loop, on one server."""
        options = self._options
        with tempfile.TemporaryDirectory(dir=self._where, prefix="bench-") as folder:
            server = Server(Path(folder), *simulated(PARKED, "engine.load_timeout_s=36000"))
            with server:
                closed = costed(
                    server, options.tasks, connections=CONNECTIONS, in_flight=IN_FLIGHT, seed=0
                )
                serial = costed(server, options.serial_tasks, connections=1, seed=1)
                opened = costed(
                    server,
                    int(options.rate * options.open_s),
                    connections=CONNECTIONS,
                    rate=options.rate,
                    seed=2,
                )
                seen = anyio.run(reached, server.socket, TaskState.PENDING)
                server.kill()
            self._rows = rows_of(Path(folder) / "queue.sqlite3", options.tasks)
        expected = closed["tasks"] + serial["tasks"] + opened["tasks"]
        assert len(seen) == expected, f"{expected} acknowledged, {len(seen)} in the store"
        assert set(task_ids(options.tasks, 0)) <= seen.keys(), "an acknowledged task is missing"
        assert set(seen.values()) == {1}, "a task was stored twice"
        return {"closed": closed, "serial": serial, "open": opened}

    def raw(self) -> Leg:
        with tempfile.TemporaryDirectory(dir=self._where, prefix="bench-") as folder:
            options, where = self._options, Path(folder)
            tasks, few = options.tasks, options.serial_tasks
            grouped = anyio.run(insert_raw, where / "grouped", self._rows, tasks, ROWS_IN_COMMIT)
            single = anyio.run(insert_raw, where / "single", self._rows, few, 1)
        return {
            "grouped": {"tasks": tasks, "seconds": sum(grouped)},
            "single": {"tasks": few, "seconds": sum(single)},
            "commit_p99_ms": percentile(grouped, 99) * 1000,
        }

    def life(self) -> Leg:
        tasks = self._options.life_tasks
        settings = simulated(INSTANT, f"engine.max_num_seqs={SLOTS}")
        with (
            tempfile.TemporaryDirectory(dir=self._where, prefix="bench-") as folder,
            Server(Path(folder), *settings) as server,
        ):
            load(server.socket, tasks=1, connections=1, follow=True, seed=1)  # it is up
            done = costed(
                server,
                tasks,
                connections=LIFE_CONNECTIONS,
                in_flight=LIFE_IN_FLIGHT,
                follow=True,
                seed=0,
            )
            seen = anyio.run(reached, server.socket, TaskState.SUCCEEDED)
            server.kill()
        assert set(task_ids(tasks, 0)) <= seen.keys(), "an answered task has not succeeded"
        assert set(seen.values()) == {1}, "a task succeeded twice"
        assert len(seen) == tasks + 1, "tasks that nobody submitted"
        return done

    def peer(self, name: str) -> Leg | None:
        """None when it is not installed."""
        tasks = self._options.peer_tasks
        with tempfile.TemporaryDirectory(dir=self._where, prefix="bench-") as folder:
            ran = subprocess.run(
                [*(sys.executable, "-P", "-m", "bench.peers", name, folder), str(tasks), "512"],
                stdout=subprocess.PIPE,
                check=False,
            )
        if ran.returncode == NOT_INSTALLED:
            return None
        ran.check_returncode()
        return {"tasks": tasks} | json.loads(ran.stdout)


def costed(server: Server, tasks: int, **how: Any) -> Leg:
    """One run of the load generator, with the server's processor time."""
    before = cpu_seconds(server.pid)
    leg = load(server.socket, tasks=tasks, **how)
    leg["server_cpu_s_per_1000"] = (cpu_seconds(server.pid) - before) / leg["tasks"] * 1000
    progress(f"  {leg}")
    return leg


def rows_of(path: Path, count: int) -> dict[str, list[tuple[Any, ...]]]:
    """The first `count` rows of each table that has a row a task."""
    with sqlite3.connect(path) as cx:
        tables = cx.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {
            name: cx.execute(f"SELECT * FROM {name} LIMIT {count}").fetchall()
            for (name,) in tables
            if not name.startswith("sqlite_")
        }
    return {name: rows for name, rows in found.items() if len(rows) == count}


async def insert_raw(
    path: Path, rows: dict[str, list[tuple[Any, ...]]], count: int, size: int
) -> list[float]:
    """Seconds of each commit of the rows of `size` tasks, into the store's tables and indexes."""
    store = SqliteStore(path, ranker("fifo"))
    await store.open()
    await store.close()
    seconds: list[float] = []
    async with aiosqlite.connect(path, isolation_level=None) as cx:
        await cx.execute("PRAGMA synchronous = FULL")
        inserts = {
            table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(lines[0]))})"
            for table, lines in rows.items()
        }
        for start in range(0, count, size):
            began = time.perf_counter()
            await cx.execute("BEGIN IMMEDIATE")
            for table, sql in inserts.items():
                await cx.executemany(sql, rows[table][start : start + size])
            await cx.execute("COMMIT")
            seconds.append(time.perf_counter() - began)
    return seconds


def speed(
    name: str, legs: list[Leg], floor: float | None = None, aim: float | None = None
) -> Figure:
    return Figure(name, "tasks/s", [leg["tasks"] / leg["seconds"] for leg in legs], floor, aim)


def costs(name: str, legs: list[Leg]) -> Figure:
    samples = [leg["server_cpu_s_per_1000"] for leg in legs]
    return Figure(f"{name}: server time for 1,000", "s", samples, less=True)


def latencies(name: str, legs: list[Leg], floor_ms: float, aim_ms: float) -> list[Figure]:
    """Percentiles; the floor is that of p99."""
    targets = {"p50": (None, None), "p99": (floor_ms, aim_ms), "p99.9": (None, None)}
    return [
        Figure(
            f"{name}: {each}", "ms", [leg["latency_ms"][each] for leg in legs], *target, less=True
        )
        for each, target in targets.items()
    ]


def figures(found: dict[str, list[Any]], rate: float) -> list[Figure]:
    closed, serial, opened = (
        [leg[name] for leg in found["submissions"]] for name in ("closed", "serial", "open")
    )
    submit = speed("submit, 32 x 16 in flight", closed, 21_500, 80_000)
    raw = speed("raw group commit", [leg["grouped"] for leg in found["raw"]])
    one_by_one = speed("serial submit", serial, 1_500, 2_500)
    raw_single = speed("raw commit of one", [leg["single"] for leg in found["raw"]])
    commit_ms = [leg["commit_p99_ms"] for leg in found["raw"]]
    open_name = f"open loop at {rate:,.0f}/s"
    refused = [leg["refused"] for leg in opened]
    life = speed("whole life, 512 in flight", found["life"], 10_000, 40_000)
    all_figures = [
        submit,
        raw,
        ratio(submit, raw, aim=0.6),
        costs("submit", closed),
        one_by_one,
        raw_single,
        ratio(one_by_one, raw_single),
        costs("serial submit", serial),
        costs(open_name, opened),
        *latencies(open_name, opened, 41, 15),
        Figure(f"{open_name}: refused", "tasks", refused, 0, less=True),
        Figure("raw group commit of 512: p99", "ms", commit_ms, less=True),
        life,
        costs("whole life", found["life"]),
    ]
    for name in PEERS:
        legs = found[name]
        if None not in legs:
            peer = speed(name, legs)
            all_figures += [peer, ratio(life, peer, 4, 15)]
    return all_figures


def parse() -> argparse.Namespace:
    parser = report.options("durable_queue", __doc__, disk=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=81_920, help="for the closed loop")
    parser.add_argument("--serial-tasks", type=int, default=3_000)
    parser.add_argument("--rate", type=float, default=21_500, help="tasks/s of the open loop")
    parser.add_argument("--open-s", type=float, default=3, help="seconds of the open loop")
    parser.add_argument("--life-tasks", type=int, default=20_000)
    parser.add_argument("--peer-tasks", type=int, default=4_000)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.tasks, arguments.serial_tasks = 1, 8_192, 500
        arguments.open_s, arguments.life_tasks, arguments.peer_tasks = 1, 4_000, 1_000
    return arguments


def main() -> int:
    arguments = parse()
    state = report.conditions(arguments, ("aiosqlite", "huey", "saq", "redis"))
    state["sqlite"] = sqlite3.sqlite_version
    state["redis_server"] = shutil.which("redis-server") is not None
    bench = Bench(arguments)
    legs: dict[str, Callable[[], Any]] = {
        "submissions": bench.submissions,
        "raw": bench.raw,
        "life": bench.life,
    }
    for name in PEERS:
        legs[name] = lambda name=name: bench.peer(name)
    found = report.turns(arguments.rounds, legs)
    return report.finish(arguments.output, state, figures(found, arguments.rate), {"legs": found})


if __name__ == "__main__":
    sys.exit(main())
