"""`kill -9` of the engine host in mid-batch, again and again, while people wait for answers.

    lost, duplicated   of the acknowledged tasks, by the clients and the event log
    status             how long `status` took to answer, asked all the time by a process of its own
    machine            how late it woke one that asked nothing: no answer can be surer than that
    recovery           from the kill to the first new token, as somebody who streams sees it
    own load           what a host alone takes from its start to its first token

Each kill waits until those that met the one before are answered. The breaker is set not to hold,
for what is measured is the way back, not the pause.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import anyio

from autoglm import Client
from bench import report
from bench.beside import beside
from bench.kill import Tasks, verify
from bench.report import Figure, percentile, progress
from bench.served import simulated
from model.frames import FromHost, Generate, Load, Loaded, Reading, decode_from_host, encode
from model.vitals import PROBE
from runtime.configload import load
from runtime.process import ChildProcess
from tests.system.real import Server

NEVER_HELD: Final = tuple(
    f"supervision.engines.{key}=1000000" for key in ("consecutive_max", "window_failures")
)
SIMULATED: Final = ("load_s=0.2", "step_ms=5", "prefill_tok_s=0", "output_tokens=12")
TINY: Final = ("--engine", "vllm", "--model", "tiny", "--set", "engine.dtype=float32")
PEOPLE: Final = 6
STATUS_MS_MAX: Final = 50
LOADS: Final = 5
BACK_S: Final = 120


class Scene:
    """Clients of one server, whose engine is killed under them."""

    def __init__(self, server: Server, client: Client) -> None:
        self.server = server
        self.client = client
        self.tasks: Tasks = {}
        self.recovery_s: list[float] = []
        self.over = False

    async def person(self, name: int) -> None:
        number = 0
        while not self.over:
            number += 1
            prompt = f"{name} {number}"
            task = await self.client.submit(prompt, max_tokens=16)
            self.tasks[task.id] = (prompt, None)
            result = await self.client.result(task.id)
            self.tasks[task.id] = (prompt, result.text)

    async def kill(self) -> None:
        """Kill the host while it works on many, and wait for the first new token."""
        with anyio.fail_after(BACK_S):
            while (engine := (await self.client.status()).engines[0]).running < PEOPLE // 2:
                pass
        assert engine.pid is not None, "a host that works has a process"
        os.kill(engine.pid, signal.SIGKILL)
        killed = time.perf_counter()
        prompt = f"after kill {len(self.recovery_s)}"
        task = await self.client.submit(prompt, priority=0, stream=True, max_tokens=16)
        self.tasks[task.id] = (prompt, None)
        first: float | None = None
        with anyio.fail_after(BACK_S):
            async for chunk in self.client.follow(task.id):
                if first is None and chunk.text:
                    first = time.perf_counter() - killed
        assert first is not None, "an answer has tokens"
        self.recovery_s.append(first)
        await self._everybody_answered()

    async def _everybody_answered(self) -> None:
        """So that nobody meets two kills: who does is taken for the culprit, and rightly so."""
        waiting = {id for id, (_, text) in self.tasks.items() if text is None}
        with anyio.fail_after(BACK_S):
            for id in waiting:
                await self.client.answer(id, wait=True)


async def scene(server: Server, kills: int) -> dict[str, Any]:
    with beside(server.socket) as (asker, sleeper):
        found = await _killed(server, kills)
        return {**found, "status_ms": asker.finish(), "late_ms": sleeper.finish()}


async def _killed(server: Server, kills: int) -> dict[str, Any]:
    async with Client(server.socket) as client:
        await client.result((await client.submit("the engine is loaded", max_tokens=4)).id)
        it = Scene(server, client)
        async with anyio.create_task_group() as group:
            for name in range(PEOPLE):
                group.start_soon(it.person, name)
            for number in range(kills):
                await it.kill()
                if (number + 1) % 10 == 0 or kills < 10:
                    progress(f"{number + 1} of {kills} kills, back in {it.recovery_s[-1]:.2f} s")
            it.over = True
    found = await verify(server.socket, it.tasks)
    return {
        "acknowledged": len(it.tasks),
        "recovery_s": it.recovery_s,
        **found,
    }


async def own_load(settings: tuple[str, ...], folder: Path) -> float:
    """Seconds from the start of a host of its own to its first token."""
    began = time.perf_counter()
    host = await ChildProcess.start("model.host", folder / "own.log")
    try:
        await host.channel.send(encode(Load(load(None, settings).engine)))
        await _first(host, lambda message: isinstance(message, Loaded))
        await host.channel.send(encode(Generate((PROBE,))))
        await _first(host, lambda message: not isinstance(message, Reading))
    finally:
        await host.kill()
    return time.perf_counter() - began


async def _first(host: ChildProcess, wanted: Callable[[FromHost], bool]) -> None:
    while True:
        if any(wanted(decode_from_host.decode(body)) for body in await host.channel.receive()):
            return


def figures(found: dict[str, Any], loads_s: list[float], *, fingerprints: bool) -> list[Figure]:
    status, late, recovery = found["status_ms"], found["late_ms"], found["recovery_s"]
    own_s = percentile(loads_s, 50)
    wrong = len(found["wrong"]) if fingerprints else 0
    return [
        Figure("acknowledged", "tasks", [found["acknowledged"]]),
        Figure("lost", "tasks", [len(found["lost"])], 0, less=True),
        Figure("duplicated", "tasks", [len(found["duplicated"])], 0, less=True),
        Figure("wrong", "tasks", [wrong], 0, less=True),
        Figure("run again", "tasks", [found["run_again"]], less=True),
        Figure("status, p50", "ms", [percentile(status, 50)], less=True),
        Figure("status, p99", "ms", [percentile(status, 99)], STATUS_MS_MAX, less=True),
        Figure("status, longest", "ms", [max(status)], STATUS_MS_MAX, less=True),
        Figure("machine: woke late, p99", "ms", [percentile(late, 99)], less=True),
        Figure("machine: woke late, longest", "ms", [max(late)], less=True),
        Figure("recovery, median", "s", [percentile(recovery, 50)], less=True),
        Figure("recovery, p99", "s", [percentile(recovery, 99)], less=True),
        Figure("own load, median", "s", [own_s], less=True),
        Figure("recovery / own load", "x", [percentile(recovery, 50) / own_s], less=True),
    ]


def run(server: Server, kills: int, own: Callable[[], Awaitable[float]]) -> tuple[Any, list[float]]:
    loads_s = [anyio.run(own) for _ in range(LOADS if kills > LOADS else 1)]
    with server:
        found = anyio.run(scene, server, kills)
    return found, loads_s


def main() -> int:
    parser = report.options("engine_deaths", __doc__, disk=True)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--vllm", action="store_true", help="the real engine, with the tiny model")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.kills = 10
    state = report.conditions(arguments, ("vllm",) if arguments.vllm else ())
    never_held = tuple(word for each in NEVER_HELD for word in ("--set", each))
    tiny = (*TINY, *never_held, "--parent", str(os.getpid()))
    options = tiny if arguments.vllm else simulated(SIMULATED, *NEVER_HELD)
    settings = (
        ("engine.kind=vllm", "engine.model=tiny", "engine.dtype=float32")
        if arguments.vllm
        else ("engine.kind=simulated", *(f"engine.simulated.{each}" for each in SIMULATED))
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        server = Server(Path(folder), *options)
        found, loads_s = run(server, arguments.kills, lambda: own_load(settings, Path(folder)))
    rows = figures(found, loads_s, fingerprints=not arguments.vllm)
    for name in ("status_ms", "late_ms"):
        found[name] = len(found[name])  # tens of thousands: how many will do
    return report.finish(arguments.output, state, rows, {"loads_s": loads_s, "found": found})


if __name__ == "__main__":
    sys.exit(main())
