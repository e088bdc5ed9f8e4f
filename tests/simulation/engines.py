"""Engine hosts of the simulation: the real host and the real simulated engine, in a process that
can be killed and can hang.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel

from model.host import EngineHost
from model.simulated import SimulatedEngine
from runtime.channel import Channel
from runtime.process import Host
from tests.simulation.loop import CURRENT, Process
from tests.simulation.net import MemoryChannel, pair
from tests.simulation.world import Universe


class MemoryHost:
    """runtime.process.Host for a simulated process."""

    def __init__(self, process: Process, channel: MemoryChannel, pid: int) -> None:
        self.pid = pid
        self.channel: Channel = channel
        self._process = process

    async def kill(self) -> None:
        with anyio.CancelScope(shield=True):
            self._process.kill()
            await anyio.lowlevel.checkpoint()

    async def wait_fate(self) -> str:
        return "killed"


class EngineRoom:
    """Starts hosts for one server process and keeps them in sight of the faults."""

    def __init__(self, universe: Universe, delay_s: float) -> None:
        self._universe = universe
        self._delay_s = delay_s
        self.launched = 0
        self.alive: list[Process] = []
        self._by_pid: dict[int, Process] = {}

    def launcher(self, name: str) -> Callable[[], Awaitable[Host]]:
        async def launch() -> Host:
            universe = self._universe
            await anyio.sleep(universe.rng("launch").uniform(0, 0.2))
            self.launched += 1
            number = self.launched
            near, far = pair(universe, f"host {number}", self._delay_s)

            async def main() -> None:
                host = CURRENT.get()
                assert host is not None, "a host is a process"
                await EngineHost(
                    MemoryChannel(far),
                    universe.clock,
                    lambda config, clock: SimulatedEngine(config, clock, host.kill),
                ).serve()

            process = universe.spawn(f"{name}#{number}", main)
            far.held_by(process)
            server = CURRENT.get()
            assert server is not None, "a server is a process"
            near.held_by(server)
            server.on_death.append(process.kill)
            self.alive = [each for each in self.alive if not each.dead] + [process]
            self._by_pid[10_000 + number] = process
            return MemoryHost(process, MemoryChannel(near), 10_000 + number)

        return launch

    def signal(self, pid: int, number: int) -> None:
        """To a host. One that was stopped does not go on: steps it missed are gone."""
        if number == signal.SIGKILL:
            self._by_pid[pid].kill()
        elif number == signal.SIGSTOP:
            self._by_pid[pid].freeze()

    def kill_one(self, draw: float) -> bool:
        """Kill one of the hosts that live, if any."""
        alive = [process for process in self.alive if not process.dead]
        if alive:
            alive[int(draw * len(alive))].kill()
        return bool(alive)

    def hang_one(self, draw: float) -> bool:
        """Stop one of the hosts in its tracks; nobody is told."""
        alive = [process for process in self.alive if not process.dead]
        if alive:
            alive[int(draw * len(alive))].freeze()
        return bool(alive)
