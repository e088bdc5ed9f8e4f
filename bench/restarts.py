"""Actors that are made to fail inside a real server: its tree, store, socket and engine host, here.

The failure is a message that no actor knows, so that the one who handles it raises.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from actors.policy.rank import ranker
from actors.tree import Tree
from actors.world import Identity, World
from autoglm.ids import Ids
from bench.beside import Beside
from bench.report import progress
from model.hosted import Launch
from runtime.breaker import BreakerOptions, BreakerState
from runtime.clock import SystemClock, system_rng
from runtime.config import Config, EngineConfig, SimulatedConfig, SupervisionConfig
from runtime.process import ChildProcess, Host
from runtime.store.sqlite import STORE_NAME, SqliteStore
from runtime.supervision import ChildState, Supervised
from runtime.transport import TransportListener

ENGINE: Final = EngineConfig(
    kind="simulated",
    simulated=SimulatedConfig(load_s=0, step_ms=20, prefill_tok_s=0, output_tokens=4),
)
NEVER_HELD: Final = BreakerOptions(consecutive_max=10**6, window_failures=10**6)
LOOK_S: Final = 0.001
"""How closely is looked: the times are right to about this."""
PAUSE_S: Final = 0.02
"""Between two failures: others may work for a while."""
BACK_S: Final = 60
NONSENSE: Final[Any] = object()


@dataclass
class Restarts:
    """What failing actors came to."""

    took_ms: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """By actor: from the message until it and all that stand on it run again."""
    hosts: set[int | None] = field(default_factory=set[int | None])
    """Process ids of the engine, looked at after each."""
    answered: int = 0
    late_ms: list[float] = field(default_factory=list[float])
    """How late the machine woke a process that did nothing."""


@dataclass
class Holds:
    """What open breakers came to."""

    times: int = 0
    seconds: float = 0.0
    starts: int = 0
    """Of who was held, while its breaker was open."""


@contextlib.asynccontextmanager
async def server_in(folder: Path, breaker: BreakerOptions) -> AsyncGenerator[Tree]:
    """A server whose actors all run."""
    logging.getLogger("autoglm").setLevel(logging.CRITICAL)  # the tracebacks are many
    store = SqliteStore(folder / STORE_NAME, ranker("priority"))
    await store.open()

    def launcher(name: str) -> Launch:
        async def launch() -> Host:
            return await ChildProcess.start("model.host", folder / f"{name}.log")

        return launch

    async def listen() -> TransportListener:
        (folder / "socket").unlink(missing_ok=True)
        return TransportListener(await anyio.create_unix_listener(folder / "socket"))

    world = World(SystemClock(), system_rng(), Ids(), store, listen, launcher, os.kill)
    config = Config(engine=ENGINE, supervision=SupervisionConfig(actors=breaker))
    tree = Tree(config, Identity("0", 0, "simulated", "none", str(folder)), world)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(tree.run)
            await until(lambda: all_run(tree) and tree.engines[0].info is not None)
            yield tree
            group.cancel_scope.cancel()
    finally:
        await store.close()


async def until(reached: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    with anyio.fail_after(BACK_S):
        while not reached():  # noqa: ASYNC110 - nobody tells
            await anyio.sleep(LOOK_S)


def all_run(tree: Tree) -> bool:
    return all(child.state is ChildState.RUNNING for child in tree.actors())


async def restarts(folder: Path, times: int) -> Restarts:
    """Each actor fails `times` times, in turns, while clients hand in tasks."""
    found = Restarts()
    async with server_in(folder, NEVER_HELD) as tree:
        clients = _clients(folder / "socket")
        sleeper = await anyio.to_thread.run_sync(Beside, "wakeups", folder / "socket")
        await until(lambda: tree.engines[0].flying > 0)
        for number in range(times):
            for child in tree.actors():
                took = await _fail(tree, child)
                found.took_ms.setdefault(child.spec.name, []).append(took * 1000)
                found.hosts.add(tree.engines[0].statistics().pid)
                await anyio.sleep(PAUSE_S)
            if (number + 1) % 20 == 0:
                progress(f"{number + 1} of {times} restarts of each actor")
        found.late_ms = await anyio.to_thread.run_sync(sleeper.finish)
        told, _ = await anyio.to_thread.run_sync(clients.communicate)
        tasks: dict[str, tuple[str, str | None]] = msgspec.json.decode(told)["tasks"]
        unanswered = [id for id, (_, text) in tasks.items() if text is None]
        assert not unanswered, f"{len(unanswered)} of {len(tasks)} tasks were never answered"
        found.answered = len(tasks)
    return found


def _clients(socket: Path) -> subprocess.Popen[bytes]:
    """They end with the thread that starts them, so it has to be one that lasts."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.reconnecting", str(socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


async def _fail(tree: Tree, child: Supervised) -> float:
    """Seconds until all run again."""
    before = child.restarts
    began = time.perf_counter()
    assert child.spec.mailboxes[0].put_nowait(NONSENSE), "the mailbox is full"
    await until(lambda: child.restarts > before and all_run(tree))
    return time.perf_counter() - began


async def holds(folder: Path, times: int) -> Holds:
    """Each actor fails until its breaker opens, `times` times; somebody counts the starts."""
    found = Holds()
    async with server_in(folder, BreakerOptions()) as tree:
        for child in tree.actors():
            with _counted(child, found):
                for _ in range(times):
                    while child.state is not ChildState.HELD:
                        child.spec.mailboxes[0].put_nowait(NONSENSE)
                        before = child.restarts
                        await until(lambda child=child, before=before: child.restarts > before)
                        await until(lambda child=child: child.state is not ChildState.STARTING)
                    began = time.perf_counter()
                    await until(lambda: all_run(tree))
                    found.times += 1
                    found.seconds += time.perf_counter() - began
    return found


@contextlib.contextmanager
def _counted(child: Supervised, found: Holds) -> Generator[None]:
    spec, clock = child.spec, SystemClock()

    def start() -> Any:
        open_still = child.breaker.wait_s(clock.monotonic()) > 0
        found.starts += open_still or child.breaker.state is BreakerState.OPEN
        return spec.start()

    child.spec = msgspec.structs.replace(spec, start=start)
    try:
        yield
    finally:
        child.spec = spec
