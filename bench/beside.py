"""Two who stand beside a benchmark, each a process of its own, and measure until stdin closes.

    status    asks the server for its `status` all the time: how long each answer took
    wakeups   asks nothing and sleeps: how much later than it wanted the machine woke it

The second tells what the first can be blamed for: where even a process that does nothing is woken
50 ms late, no server on the same processors can answer faster.
"""

from __future__ import annotations

import contextlib
import gc
import json
import select
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import anyio

from autoglm import Client

EVERY_S: Final = 0.005


class Beside:
    """One of the two, at work."""

    def __init__(self, what: str, socket: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.beside", what, str(socket)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it has begun

    def finish(self) -> list[float]:
        """What it measured, in milliseconds."""
        told, _ = self._process.communicate()
        return json.loads(told)

    def kill(self) -> None:
        self._process.kill()


@contextlib.contextmanager
def beside(socket: Path) -> Generator[tuple[Beside, Beside]]:
    """Who asks for the status, and who only wakes; both have begun."""
    with contextlib.ExitStack() as stack:
        both = [Beside(what, socket) for what in ("status", "wakeups")]
        for each in both:
            stack.callback(each.kill)
        yield both[0], both[1]


def over() -> bool:
    """Whether whoever started us has enough."""
    return bool(select.select([sys.stdin], [], [], 0)[0])


async def status(socket: Path) -> list[float]:
    took_ms: list[float] = []
    async with Client(socket) as client:
        await client.status()
        print(flush=True)
        while not over():
            began = time.perf_counter()
            await client.status()
            took_ms.append((time.perf_counter() - began) * 1000)
            await anyio.sleep(EVERY_S)
    return took_ms


def wakeups() -> list[float]:
    late_ms: list[float] = []
    print(flush=True)
    while not over():
        began = time.perf_counter()
        time.sleep(EVERY_S)
        late_ms.append((time.perf_counter() - began - EVERY_S) * 1000)
    return late_ms


def main() -> None:
    what, socket = sys.argv[1:]
    gc.freeze()
    print(json.dumps(wakeups() if what == "wakeups" else anyio.run(status, Path(socket))))


if __name__ == "__main__":
    main()
