"""What it costs that something dies: actors, and engines that a prompt kills or hangs.

restart     from an actor's failure until it and all that stand on it run again, under load
poison      among 1,000 tasks at 256 slots, one or three kill the engine or hang it each time:
            restarts of the engine, and what became of the others
held        starts of what an open breaker holds, actors and the engine; there should be none
machine     how late it woke a process that asked nothing, in the same run as the restarts
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio

from autoglm import Client
from autoglm.types import Answer, TaskState
from bench import report
from bench.report import Figure, percentile, progress
from bench.restarts import Holds, Restarts, holds, restarts
from bench.served import simulated
from runtime.process import STARTS
from tests.system.real import Server, fingerprint

TASKS: Final = 1000
SLOTS: Final = 256
POISONED: Final = (("crash", 1), ("crash", 3), ("hang", 1))
ENGINE: Final = ("load_s=0.01", "step_ms=1")
FAULTS: Final = ("engine.faults=true", f"engine.max_num_seqs={SLOTS}", "engine.watchdog_s=1")
RESTART_MS_MAX: Final = 50
RESTARTS_MAX: Final = 12
"""Of the engine, for each poison."""
HOLD: Final = "supervision.engines.delay_first_s=2"
SOON_S: Final = 300


@dataclass
class Poisoned:
    """What poison among many tasks came to, run by run."""

    restarts: list[int] = field(default_factory=list[int])
    answered: list[int] = field(default_factory=list[int])
    """Of those that are no poison."""
    charged: int = 0
    """Of those too: failures that were counted against one."""
    found: list[int] = field(default_factory=list[int])
    """Poisons that ended as what they are."""
    seconds: list[float] = field(default_factory=list[float])


async def _answers(server: Server, prompts: list[str]) -> list[Answer]:
    async with Client(server.socket) as client:
        ids: list[str] = [""] * len(prompts)

        async def hand_in(number: int) -> None:
            ids[number] = (await client.submit(prompts[number])).id

        with anyio.fail_after(SOON_S):
            async with anyio.create_task_group() as group:
                for number in range(len(prompts)):
                    group.start_soon(hand_in, number)
            return [await client.answer(id, wait=True) for id in ids]


def poison(folder: Path, mark: str, poisons: int, runs: int) -> Poisoned:
    """`poisons` of the tasks bear `mark`, others in each run."""
    came = Poisoned()
    for number in range(runs):
        bad = set(random.Random(f"{mark} {number}").sample(range(TASKS), poisons))
        prompts = [f"prompt {each}{f' [[{mark}]]' * (each in bad)}" for each in range(TASKS)]
        with tempfile.TemporaryDirectory(dir=folder) as own:
            server = Server(Path(own), *simulated(ENGINE, *FAULTS))
            with server:
                began = time.perf_counter()
                answers = anyio.run(_answers, server, prompts)
                came.seconds.append(time.perf_counter() - began)
        good = [answers[each] for each in range(TASKS) if each not in bad]
        texts = [prompts[each] for each in range(TASKS) if each not in bad]
        came.restarts.append(server.said.count("engine-1 failed:"))
        came.answered.append(sum(map(_is_answered, good, texts)))
        came.charged += sum(answer.task.failures for answer in good)
        came.found.append(sum(_is_found(answers[each]) for each in bad))
        progress(f"{poisons} {mark}: {came.restarts[-1]} restarts in {came.seconds[-1]:.0f} s")
    return came


def _is_answered(answer: Answer, prompt: str) -> bool:
    text = answer.result.text if answer.result else ""
    return answer.task.state is TaskState.SUCCEEDED and text.startswith(fingerprint(prompt))


def _is_found(answer: Answer) -> bool:
    task = answer.task
    error = task.error.code if task.error else None
    return (task.state, error) == (TaskState.DEAD, "poison")


async def _engine_held(server: Server, log: Path) -> Holds:
    """Kill the engine until its breaker opens; then look on while it is open."""
    found = Holds()
    async with Client(server.socket) as client:
        killed: set[int] = set()
        with anyio.fail_after(SOON_S):
            while (engine := (await client.status()).engines[0]).breaker != "open":
                if engine.state == "ready" and engine.pid and engine.pid not in killed:
                    killed.add(engine.pid)
                    os.kill(engine.pid, signal.SIGKILL)
            found.times = 1
            began, before = time.perf_counter(), _started(log)
            while True:
                now = _started(log)  # first: if it is open still, then it was then
                if (await client.status()).engines[0].breaker != "open":
                    break
                found.starts = now - before
            found.seconds = time.perf_counter() - began
    return found


def _started(log: Path) -> int:
    """Processes that were started, by what each of them finds written in its log."""
    return log.read_bytes().count(STARTS)


def engine_held(folder: Path, times: int) -> Holds:
    found = Holds()
    for number in range(times):
        with (
            tempfile.TemporaryDirectory(dir=folder) as own,
            Server(Path(own), *simulated(ENGINE, HOLD)) as server,
        ):
            one = anyio.run(_engine_held, server, Path(own) / "engine-1.log")
        found.times += one.times
        found.seconds += one.seconds
        found.starts += one.starts
        progress(f"engine held {number + 1} of {times} times, {one.seconds:.1f} s")
    return found


def restart_figures(came: Restarts) -> list[Figure]:
    rows: list[Figure] = []
    for name, took in came.took_ms.items():
        rows += [
            Figure(f"restart of {name}, p50", "ms", [percentile(took, 50)], less=True),
            Figure(
                f"restart of {name}, p99", "ms", [percentile(took, 99)], RESTART_MS_MAX, less=True
            ),
            Figure(f"restart of {name}, longest", "ms", [max(took)], less=True),
        ]
    return [
        *rows,
        Figure("restarts of actors", "", [sum(map(len, came.took_ms.values()))]),
        Figure("engine processes meanwhile", "", [len(came.hosts)], 1, less=True),
        Figure("tasks answered meanwhile, all of them", "tasks", [came.answered]),
        Figure("machine: woke late, p99", "ms", [percentile(came.late_ms, 99)], less=True),
        Figure("machine: woke late, longest", "ms", [max(came.late_ms)], less=True),
    ]


def poison_figures(mark: str, poisons: int, came: Poisoned) -> list[Figure]:
    name = f"{poisons} x {mark}"
    good = TASKS - poisons
    return [
        Figure(f"{name}: restarts of the engine", "", came.restarts, less=True),
        Figure(
            f"{name}: most restarts for one poison",
            "",
            [max(came.restarts) / poisons],
            RESTARTS_MAX,
            less=True,
        ),
        Figure(f"{name}: least of the others answered", "tasks", [min(came.answered)], good),
        Figure(f"{name}: failures charged to others", "", [came.charged], 0, less=True),
        Figure(f"{name}: least poisons found out", "", [min(came.found)], poisons),
        Figure(f"{name}: until all had ended", "s", came.seconds, less=True),
    ]


def held_figures(actors: Holds, engine: Holds) -> list[Figure]:
    rows: list[Figure] = []
    for name, came in (("actors", actors), ("engine", engine)):
        rows += [
            Figure(f"held, {name}: times", "", [came.times]),
            Figure(f"held, {name}: altogether", "s", [came.seconds]),
            Figure(f"held, {name}: starts meanwhile", "", [came.starts], 0, less=True),
        ]
    return rows


def main() -> int:
    parser = report.options("supervision", __doc__, disk=True)
    parser.add_argument("--restarts", type=int, default=200, help="of each actor")
    parser.add_argument("--runs", type=int, default=5, help="of each kind of poison")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.restarts, arguments.runs = 20, 1
    state = report.conditions(arguments, ("aiosqlite",))
    rows: list[Figure] = []
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as name:
        folder = Path(name)
        for each in ("restarts", "holds"):
            (folder / each).mkdir()
        uvloop = {"use_uvloop": True}
        actors = anyio.run(
            restarts, folder / "restarts", arguments.restarts, backend_options=uvloop
        )
        details["restarts_ms"] = actors.took_ms
        rows += restart_figures(actors)
        for mark, poisons in POISONED:
            rows += poison_figures(mark, poisons, poison(folder, mark, poisons, arguments.runs))
        times = min(3, arguments.runs)
        held = anyio.run(holds, folder / "holds", times, backend_options=uvloop)
        rows += held_figures(held, engine_held(folder, times))
    return report.finish(arguments.output, state, rows, details)


if __name__ == "__main__":
    sys.exit(main())
