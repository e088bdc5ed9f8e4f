"""Actors that crash in a real server, on a real store and with a real engine host."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Listener, SocketStream

from actors.policy.rank import ranker
from actors.tree import Tree
from actors.world import Identity, World
from autoglm import Client
from autoglm.ids import Ids
from model.hosted import Launch
from runtime.breaker import BreakerOptions
from runtime.clock import SystemClock, system_rng
from runtime.config import Config, EngineConfig, SimulatedConfig, SupervisionConfig
from runtime.process import ChildProcess, Host
from runtime.store.sqlite import STORE_NAME, SqliteStore
from runtime.supervision import ChildState

pytestmark = pytest.mark.system

CRASHES = 15
"""Of each actor."""
PATIENCE_S = 30
OFTEN = BreakerOptions(consecutive_max=10**6, window_failures=10**6)
CONFIG = Config(
    engine=EngineConfig(kind="simulated", simulated=SimulatedConfig(load_s=0, step_ms=1)),
    supervision=SupervisionConfig(actors=OFTEN),
)


def tree_in(folder: Path, store: SqliteStore) -> Tree:
    def launcher(name: str) -> Launch:
        async def launch() -> Host:
            return await ChildProcess.start("model.host", folder / f"{name}.log")

        return launch

    async def listen() -> Listener[SocketStream]:
        (folder / "socket").unlink(missing_ok=True)
        return await anyio.create_unix_listener(folder / "socket")

    world = World(SystemClock(), system_rng(), Ids(), store, listen, launcher, os.kill)
    return Tree(CONFIG, Identity("0", 0, "simulated", "none", str(folder)), world)


async def until_all_run(tree: Tree) -> None:
    with anyio.fail_after(PATIENCE_S):
        while any(child.state is not ChildState.RUNNING for child in tree.actors()):
            await anyio.lowlevel.checkpoint()


async def test_crashed_actors_are_back_and_the_engine_is_not_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "autoglm")  # their tracebacks are many
    store = SqliteStore(tmp_path / STORE_NAME, ranker("priority"))
    await store.open()
    tree = tree_in(tmp_path, store)
    nonsense: Any = object()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(tree.run)
            await until_all_run(tree)
            async with Client(tmp_path / "socket") as client:
                await client.result((await client.submit("the engine is loaded")).id)
            pid = tree.engines[0].statistics().pid
            for child in list(tree.actors()) * CRASHES:
                before = child.restarts
                assert child.spec.mailboxes[0].put_nowait(nonsense)
                with anyio.fail_after(PATIENCE_S):
                    while child.restarts == before:
                        await anyio.lowlevel.checkpoint()
                await until_all_run(tree)
            async with Client(tmp_path / "socket") as client:
                await client.result((await client.submit("still there")).id, timeout=PATIENCE_S)
            assert tree.engines[0].statistics().pid == pid
            group.cancel_scope.cancel()
    finally:
        await store.close()
