"""A real `autoglm serve` as benchmarks need it: its costs, and the load on it."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from autoglm import Client
from autoglm.types import TaskState

HERE: Final = Path(__file__).parent
INSTANT: Final = ("load_s=0", "step_ms=0", "prefill_tok_s=0", "output_tokens=1")
PARKED: Final = ("load_s=36000", "step_ms=0", "prefill_tok_s=0", "output_tokens=1")
"""An engine that never comes up: what is handed in stays pending."""


def simulated(settings: tuple[str, ...], *more: str) -> tuple[str, ...]:
    """Options for a simulated engine, `settings` its own and `more` of any section. The server
    ends with us, however we end.
    """
    sets = (*(f"engine.simulated.{each}" for each in settings), *more)
    words = [word for each in sets for word in ("--set", each)]
    return ("--engine", "simulated", "--parent", str(os.getpid()), *words)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all that it started and that still run."""
    ticks = 0
    for each in family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and its descendants."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")  # each knows those that it started
    children = [child for thread in threads for child in thread.read_text().split()]
    return [pid, *(each for child in children for each in family(int(child)))]


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of one process, MB of 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def load(socket: Path, **options: Any) -> dict[str, Any]:
    """One run of the load generator; True stands for a flag that is given."""
    words = [
        word
        for name, value in options.items()
        if value is not None and value is not False
        for word in (f"--{name.replace('_', '-')}", *(() if value is True else (str(value),)))
    ]
    ran = subprocess.run(
        [sys.executable, "-P", "-m", "bench.load", "--socket", str(socket), *words],
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(ran.stdout)


async def reached(socket: Path, state: TaskState) -> collections.Counter[str]:
    """How often each task went over into `state`, by the event log as a client reads it."""
    async with Client(socket, tenant=None) as client:
        return collections.Counter(
            [event.task async for event in client.events() if event.to_state is state]
        )
