"""Engine hosts that are killed, crash, hang or never load, as real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec
import pytest

from autoglm import Client, Task
from autoglm.types import Status, TaskState
from runtime.orphans import identity_of
from runtime.process import STARTS
from tests.system.real import Server, succeeded

pytestmark = pytest.mark.system

SIMULATED = ("--engine", "simulated", "--set", "engine.simulated.load_s=0")
SLOW_STEPS = (*SIMULATED, "--set", "engine.simulated.step_ms=20")
HANGING = (
    *(*SIMULATED, "--set", "engine.faults=true"),
    *("--set", "engine.watchdog_s=0.5", "--set", "engine.simulated.step_ms=1"),
)
PATIENCE_S = 40


async def seen(client: Client, wanted: Callable[[Status], object]) -> Status:
    """The first status that is as wanted."""
    with anyio.fail_after(PATIENCE_S):
        while not wanted(status := await client.status()):
            pass
    return status


def running(count: int) -> Callable[[Status], bool]:
    return lambda status: status.tasks["running"] == count


def deaths(server: Server, task: Task) -> int:
    """Engine deaths that the task was present at, as the store has them."""
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        (count,) = cx.execute("SELECT deaths FROM task WHERE id = ?", (task.id,)).fetchone()
    return count


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
async def test_a_host_that_dies_comes_back_and_what_it_had_is_done_first_uncharged(
    tmp_path: Path, number: signal.Signals
) -> None:
    one_slot = ("--set", "engine.max_num_seqs=1")
    with Server(tmp_path, *SLOW_STEPS, *one_slot) as server:
        async with Client(server.socket) as client:
            first = await client.submit("first [[tokens:50]]")
            others = [await client.submit(f"other {n} [[tokens:2]]") for n in range(4)]
            status = await seen(client, lambda status: status.engines[0].running == 1)
            assert status.engines[0].pid is not None
            os.kill(status.engines[0].pid, number)
            for task in (first, *others):
                result = await client.result(task.id, timeout=PATIENCE_S)
                assert result.task.failures == 0
            assert (await client.get(first.id)).attempt == 2
        assert next(iter(succeeded(server))) == first.id
        assert server.stop() == 0
    assert f"the host process ended: {number.name}" in server.said


async def test_a_host_that_hangs_is_ended_and_only_what_hangs_it_pays(tmp_path: Path) -> None:
    with Server(tmp_path, *HANGING) as server:
        async with Client(server.socket) as client:
            hangs = await client.submit("[[hang]]")
            others = [await client.submit(f"other {n}") for n in range(4)]
            for task in others:
                result = await client.result(task.id, timeout=PATIENCE_S)
                assert result.task.failures == 0
            answer = await client.answer(hangs.id, wait=True)
    assert answer.task.state is TaskState.DEAD
    assert answer.task.error is not None
    assert answer.task.error.code == "poison"


async def test_cancelling_what_hung_the_engine_leaves_the_blame_with_nobody(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *HANGING) as server:
        async with Client(server.socket) as client:
            hangs = await client.submit("[[hang]]")
            await seen(client, lambda status: status.engines[0].running == 1)
            await client.cancel(hangs.id)
            later = await client.submit("later")
            result = await client.result(later.id, timeout=PATIENCE_S)
        assert result.task.attempt == 2
        assert deaths(server, later) == 0


async def test_an_engine_that_takes_too_long_to_load_is_held_and_the_queue_goes_on(
    tmp_path: Path,
) -> None:
    never = ("--set", "engine.simulated.load_s=60", "--set", "engine.load_timeout_s=0.1")
    with Server(tmp_path, "--engine", "simulated", *never) as server:
        async with Client(server.socket) as client:
            task = await client.submit("waits")
            status = await seen(client, lambda status: status.engines[0].breaker == "open")
            assert status.engines[0].state == "down"
            assert status.engines[0].error == "not loaded within 0.1 s"
            assert (await client.get(task.id)).state is TaskState.PENDING
        assert server.stop() == 0


async def test_the_last_words_of_a_dead_host_outlive_it(tmp_path: Path) -> None:
    with Server(tmp_path, *SIMULATED) as server:
        async with Client(server.socket) as client:
            status = await seen(client, lambda status: status.engines[0].state == "ready")
            pid = status.engines[0].pid
            assert pid is not None
            log = tmp_path / "engine-1.log"
            with log.open("a") as file:
                file.write("illegal instruction\n")
            os.kill(pid, signal.SIGKILL)
            await seen(client, lambda status: status.engines[0].pid not in (None, pid))
        assert server.stop() == 0
    assert "SIGKILL, perhaps out of memory: illegal instruction" in server.said
    assert "illegal instruction" in log.read_text()


NEVER_LOADS = (
    *("--engine", "simulated", "--set", "engine.simulated.load_s=60"),
    *("--set", "engine.load_timeout_s=0.05"),
)


def starts(folder: Path) -> int:
    """How often a host of the first engine was started."""
    return (folder / "engine-1.log").read_bytes().count(STARTS)


def kept_breakers(server: Server) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        return cx.execute("SELECT count(*) FROM engine_breaker").fetchone()[0]


async def test_an_open_breaker_outlives_the_server_and_nothing_is_started_meanwhile(
    tmp_path: Path,
) -> None:
    long = [f"supervision.engines.{key}=600" for key in ("delay_first_s", "delay_max_s")]
    held = tuple(word for each in long for word in ("--set", each))
    with Server(tmp_path, *NEVER_LOADS, *held) as server:
        async with Client(server.socket) as client:
            await seen(client, lambda status: status.engines[0].breaker == "open")
        while not kept_breakers(server):
            pass
        server.kill()
    before = starts(tmp_path)
    assert before == 4, "three failures in a row are borne"
    with Server(tmp_path, *SIMULATED, *held) as server:
        async with Client(server.socket) as client:
            with anyio.move_on_after(2):
                while (status := await client.status()).engines[0].breaker == "open":
                    assert (status.engines[0].state, status.engines[0].pid) == ("down", None)
                raise AssertionError("it was tried too early")
        server.kill()
    assert starts(tmp_path) == before


async def test_a_remembered_breaker_allows_one_try_when_its_time_is_over_and_success_closes_it(
    tmp_path: Path,
) -> None:
    short = [f"supervision.engines.{key}=3" for key in ("delay_first_s", "delay_max_s")]
    held = tuple(word for each in short for word in ("--set", each))
    with Server(tmp_path, *NEVER_LOADS, *held) as server:
        while not kept_breakers(server):
            pass
        server.kill()
    with Server(tmp_path, *SIMULATED, *held) as server:
        async with Client(server.socket) as client:
            task = await client.submit("hello")
            await client.result(task.id, timeout=PATIENCE_S)
            status = await client.status()
        assert status.engines[0].breaker == "closed"
        while kept_breakers(server):
            pass


def test_an_engine_that_can_not_be_kept_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    settings = ("consecutive_max=0", "probes_max=2", "delay_first_s=0.01", "delay_max_s=0.01")
    soon = tuple(word for each in settings for word in ("--set", f"supervision.engines.{each}"))
    with Server(tmp_path, *NEVER_LOADS, *soon) as server:
        assert server.wait() == 1
    last = server.said.splitlines()[-1]
    assert last == (
        "autoglm: giving up: engine-1 keeps failing: HostDied: not loaded within 0.05 s"
    )
    assert starts(tmp_path) == 3


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "600"], start_new_session=True)


async def test_a_host_that_outlived_its_server_is_ended_by_the_next_one(tmp_path: Path) -> None:
    with Server(tmp_path, *SIMULATED) as server:
        async with Client(server.socket) as client:
            await seen(client, lambda status: status.engines[0].state == "ready")
        record = tmp_path / "engine-1.host"
        assert record.exists()
        server.kill()
    # The kernel has killed the real one; this one stands for a host that it did not reach.
    with sleeper() as survivor:
        identity = identity_of(survivor.pid)
        record.write_bytes(msgspec.json.encode(identity))
        with Server(tmp_path, *SIMULATED) as server:
            assert survivor.wait(PATIENCE_S) == -signal.SIGKILL
            async with Client(server.socket) as client:
                await seen(client, lambda status: status.engines[0].state == "ready")
            assert server.stop() == 0
    assert not record.exists()
