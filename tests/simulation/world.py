"""One simulated universe, made from one seed: its time, its chances, its processes, its trace."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

import anyio

from autoglm.ids import Ids
from tests.simulation.loop import CURRENT, Process, Step, VirtualClock, VirtualLoop

DISORDERS = (0.0, 0.1, 0.5, 1.0)
STEPS_MAX = 400_000


class Universe:
    """Everything random comes from named streams of the seed, so that adding a draw in one place
    leaves the others as they were.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace: list[str] = []
        """What happened, a line for each step: a few MB at the most."""
        disorder = self.rng("disorder").choice(DISORDERS)
        self.loop = VirtualLoop(self.rng("order"), disorder, STEPS_MAX, self._on_step)
        self.clock = VirtualClock(self.loop)
        self.problems: list[Exception] = []
        """What processes ended with, for whoever looks into a seed."""
        self.kill_at: dict[Process, tuple[int, Callable[[], None]]] = {}
        """What is to happen when a process has made so many steps."""

    def rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed}/{name}")

    def ids(self, name: str) -> Ids:
        return Ids(self.clock.wall_ms, self.rng(f"ids of {name}").getrandbits)

    def note(self, *what: object) -> None:
        """Write into the trace: two runs of one seed must make the same."""
        self.trace.append(f"{self.loop.time():.6f} {' '.join(map(str, what))}")

    @property
    def digest(self) -> str:
        """Of the whole trace."""
        return hashlib.blake2b("\n".join(self.trace).encode(), digest_size=8).hexdigest()

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Call on behalf of nobody: it happens whoever has died meanwhile."""
        self.loop.call_later(seconds, call, *args, context=Context())

    def spawn(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> Process:
        """A new process that runs `main` and is dead when that ends, however it ends."""
        process = Process(name)
        context = Context()
        context.run(CURRENT.set, process)

        async def run() -> None:
            try:
                await main()
            except Exception as error:
                self.problems.append(error)
                self.note(process, "ended:", repr(error))
            if self.loop.is_running():
                process.kill()

        self.later(0, lambda: self.loop.create_task(run(), context=context))
        return process

    async def done(self, process: Process) -> None:
        """Until the process is dead."""
        ended = anyio.Event()
        process.on_death.append(ended.set)
        if not process.dead:
            await ended.wait()

    def _on_step(self, step: Step) -> None:
        process = step.process
        name = process.name if process is not None else "-"
        self.trace.append(f"{self.loop.time():.6f} {name} {step.label()}")
        if process is None:
            return
        process.steps += 1
        if process in self.kill_at and process.steps >= self.kill_at[process][0]:
            self.kill_at.pop(process)[1]()
