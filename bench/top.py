"""What watching costs: processor time of the server while `autoglm top` is open, against none open,
and of `autoglm run` with its panel, against a pipe.

top      a server whose simulated engine is full all the while, with thousands waiting; times with
         a view open and times without take turns, and what counts is the server's own process
request  the same by asking for the status many times in a row
run      one job of short answers again and again, on a terminal and into a pipe
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio

from autoglm import Client
from bench import report
from bench.report import Figure, ratio
from bench.screen import Screen
from bench.served import INSTANT, simulated
from tests.system.real import AUTOGLM, Server

SIZE: Final = (200, 50)
STEADY: Final = ("load_s=0", "step_ms=5", "prefill_tok_s=0", "output_tokens=20")
TENANTS: Final = 20
TASKS_PER_S: Final = 700
"""No more than this are answered."""
CORE_MAX: Final = 2.0
REQUESTS: Final = 500


def cpu_s(pid: int) -> float:
    """User and system time of one process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percent_of_a_core(server: Server, seconds: float, *, watched: bool) -> float:
    """What the server takes in so long, with a view open or none."""
    with contextlib.ExitStack() as stack:
        if watched:
            command = [*AUTOGLM, "top", "--data-dir", str(server.folder)]
            screen = stack.enter_context(Screen(command, *SIZE, server.folder))
            screen.read_for(3)
            began, at = cpu_s(server.pid), time.monotonic()
            screen.read_for(seconds)
            assert screen.process.poll() is None, screen.seen[-500:]
        else:
            began, at = cpu_s(server.pid), time.monotonic()
            time.sleep(seconds)
        return 100 * (cpu_s(server.pid) - began) / (time.monotonic() - at)


def hand_in(server: Server, count: int) -> None:
    """So many tasks of many tenants, in all queues."""
    queues = ("core", "normal", "background")

    async def submit() -> None:
        for tenant in range(TENANTS):
            async with Client(server.socket, tenant=f"tenant-{tenant}") as client:
                for start in range(0, count // TENANTS, 1000):
                    stop = min(start + 1000, count // TENANTS)
                    await client.submit_many(
                        client.spec(f"question {n}", queue=queues[n % 3])
                        for n in range(start, stop)
                    )

    anyio.run(submit)


def ms_a_request(server: Server) -> float:
    """Processor time of the server for one status."""

    async def ask() -> None:
        async with Client(server.socket, tenant=None) as client:
            for _ in range(REQUESTS):
                await client.status()

    idle_s, began, at = 2.0, cpu_s(server.pid), time.monotonic()
    time.sleep(idle_s)
    idle = (cpu_s(server.pid) - began) / (time.monotonic() - at)
    began, at = cpu_s(server.pid), time.monotonic()
    anyio.run(ask)
    spent = cpu_s(server.pid) - began - idle * (time.monotonic() - at)
    return 1000 * spent / REQUESTS


def run_cpu_s(folder: Path, server: Server, *, terminal: bool) -> float:
    """Processor time of one `autoglm run` over the same file."""
    words = ["run", "in.jsonl", "-o", "out.jsonl", "--fresh", "--data-dir", str(server.folder)]
    before = os.times()
    if terminal:
        with Screen([*AUTOGLM, *words], *SIZE, folder) as screen:
            screen.read_for(300)
            assert screen.process.returncode == 0, screen.seen[-500:]
    else:
        subprocess.run([*AUTOGLM, *words], cwd=folder, check=True, capture_output=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def watching(folder: Path, arguments: argparse.Namespace) -> list[Figure]:
    options = simulated(STEADY, "engine.max_num_seqs=64")
    with Server(folder / "watched", *options) as server:
        hand_in(server, int(arguments.rounds * arguments.seconds * 2 * TASKS_PER_S + 20_000))
        found = report.turns(
            arguments.rounds,
            {
                "none": lambda: percent_of_a_core(server, arguments.seconds, watched=False),
                "top": lambda: percent_of_a_core(server, arguments.seconds, watched=True),
            },
        )
        requests = [ms_a_request(server) for _ in range(3)]
        hand_over = server.ask("status", "--json").stdout
        assert json.loads(hand_over)["tasks"]["pending"] > 0, "it ran out of work"
    more = [with_ - without for with_, without in zip(found["top"], found["none"], strict=True)]
    return [
        Figure("server with none watching", "% of a core", found["none"]),
        Figure("server with top open", "% of a core", found["top"]),
        Figure("top costs the server", "% of a core", more, CORE_MAX, 0.5, less=True),
        Figure("one status", "ms", requests, less=True),
    ]


def running(folder: Path, arguments: argparse.Namespace) -> list[Figure]:
    lines = "".join(f'{{"prompt": "question {n}"}}\n' for n in range(arguments.lines))
    (folder / "in.jsonl").write_text(lines)
    with Server(folder / "served", *simulated(INSTANT)) as server:
        found = report.turns(
            arguments.rounds,
            {
                "pipe": lambda: run_cpu_s(folder, server, terminal=False),
                "panel": lambda: run_cpu_s(folder, server, terminal=True),
            },
        )
    figures = {name: Figure(f"run, {name}", "s", samples) for name, samples in found.items()}
    return [*figures.values(), ratio(figures["panel"], figures["pipe"])]


def main() -> int:
    parser = report.options("top", __doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--lines", type=int, default=5000)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.lines = 2, 5, 2000
    state = report.conditions(arguments, ("rich", "anyio", "msgspec"))
    with tempfile.TemporaryDirectory() as folder:
        figures = [*watching(Path(folder), arguments), *running(Path(folder), arguments)]
    return report.finish(arguments.output, state, figures, {})


if __name__ == "__main__":
    sys.exit(main())
