"""The server killed and stopped at any moment, under load: each acknowledged task, one result."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path

import anyio
import pytest

from autoglm import Client
from autoglm.retry import Patience
from tests.system.real import Server, fingerprint, sound, succeeded

pytestmark = pytest.mark.system

OPTIONS = (
    *("--engine", "simulated", "--set", "engine.simulated.load_s=0"),
    *("--set", "engine.max_num_seqs=8", "--set", "engine.simulated.step_ms=5"),
)
CLIENTS = 4
OUT_MAX = 6
"""Tasks of one person that are not answered yet."""
KILLS = 12
STOPS = 6
DRAIN_S = 1.0
LITTLE_S = 3.0
"""What starting and ending a process may take on a busy machine."""
ANSWERED_S = 60
LOAD_S = 90
PATIENT = Patience(window_s=30, busy_s=30)


class Load:
    """People who hand in prompts one after another until told to stop, and follow each."""

    def __init__(self, server: Server, seed: int) -> None:
        self.server = server
        self.acknowledged: dict[str, str] = {}
        """Prompts by task id, from the moment the server said that it has them."""
        self.answers: dict[str, list[str]] = {}
        """What was said of each task, to whoever followed it."""
        self.over = False
        self._rng = random.Random(seed)

    async def person(self, name: int) -> None:
        async with (
            Client(self.server.socket, patience=PATIENT) as client,
            anyio.create_task_group() as group,
        ):
            number, room = 0, anyio.CapacityLimiter(OUT_MAX)
            while not self.over:
                number += 1
                prompt = f"{name} {number} [[tokens:{self._rng.randint(1, 60)}]]"
                task = await client.submit(prompt)
                self.acknowledged[task.id] = prompt
                await room.acquire_on_behalf_of(task.id)
                group.start_soon(self._follow, client, task.id, room)

    async def _follow(self, client: Client, id: str, room: anyio.CapacityLimiter) -> None:
        text = ""
        async for chunk in client.follow(id):
            text = chunk.text if chunk.reset else text + chunk.text
        self.answers.setdefault(id, []).append(text)
        room.release_on_behalf_of(id)

    async def check(self) -> None:
        """Everything acknowledged is answered once, rightly, and charged to nobody."""
        async with Client(self.server.socket) as client:
            for id, prompt in self.acknowledged.items():
                result = await client.result(id, timeout=ANSWERED_S)
                assert result.text.startswith(fingerprint(prompt))
                assert result.task.failures == 0
                assert self.answers[id] == [result.text]
        times = succeeded(self.server)
        assert set(times) >= set(self.acknowledged)
        assert set(times.values()) == {1}


def between(seed: int, shortest_s: float, longest_s: float, count: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.uniform(shortest_s, longest_s) for _ in range(count)]


async def test_killed_again_and_again_under_load_it_loses_nothing_and_answers_once(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *OPTIONS) as server:
        load = Load(server, seed=1)
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + LOAD_S
            for name in range(CLIENTS):
                group.start_soon(load.person, name)
            for pause_s in between(2, 0.02, 0.8, KILLS):
                await anyio.sleep(pause_s)
                server.kill()
                await anyio.to_thread.run_sync(server.start)
            load.over = True
        assert not group.cancel_scope.cancelled_caught, "somebody waits for ever"
        await load.check()
        assert len(load.acknowledged) > CLIENTS * KILLS
        assert server.stop() == 0
    assert sound(server.store)


async def test_stopped_at_any_moment_under_load_it_ends_in_time_and_loses_nothing(
    tmp_path: Path,
) -> None:
    step = ("--set", "engine.simulated.step_ms=100")  # much of it takes longer than the drain
    options = (*OPTIONS, *step, "--drain-timeout", f"{DRAIN_S}s")
    with Server(tmp_path, *options) as server:
        load = Load(server, seed=3)
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + LOAD_S
            for name in range(CLIENTS):
                group.start_soon(load.person, name)
            for pause_s in between(4, 0.05, 1.5, STOPS):
                await anyio.sleep(pause_s)
                began = time.monotonic()
                assert await anyio.to_thread.run_sync(server.stop) == 0
                assert time.monotonic() - began < DRAIN_S + LITTLE_S
                assert not still_running(server)
                await anyio.to_thread.run_sync(server.start)
            load.over = True
        assert not group.cancel_scope.cancelled_caught, "somebody waits for ever"
        await load.check()


async def test_stopped_twice_under_load_it_ends_at_once_and_the_store_is_consistent(
    tmp_path: Path,
) -> None:
    options = (*OPTIONS, "--drain-timeout", "600s", "--set", "engine.simulated.step_ms=50")
    with Server(tmp_path, *options) as server:
        load = Load(server, seed=5)
        async with anyio.create_task_group() as group:
            group.cancel_scope.deadline = anyio.current_time() + LOAD_S
            for name in range(CLIENTS):
                group.start_soon(load.person, name)
            for pause_s in between(6, 0.2, 1.0, 3):
                await anyio.sleep(pause_s)
                os.kill(server.pid, signal.SIGTERM)
                await anyio.sleep(pause_s / 10)
                began = time.monotonic()
                assert await anyio.to_thread.run_sync(server.stop) == 0
                assert time.monotonic() - began < LITTLE_S
                assert sound(server.store)
                assert not still_running(server)
                await anyio.to_thread.run_sync(server.start)
            load.over = True
        assert not group.cancel_scope.cancelled_caught, "somebody waits for ever"
        await load.check()


def still_running(server: Server) -> Counter[str]:
    """Tasks that the store of a stopped server says are running."""
    with sqlite3.connect(f"file:{server.store}?mode=ro", uri=True) as cx:
        rows = cx.execute("SELECT id FROM task WHERE state = 'running'").fetchall()
    cx.close()
    return Counter(id for (id,) in rows)
