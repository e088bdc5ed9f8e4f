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
from autoglm.status import Status
from autoglm.types import TaskState
from runtime.orphans import identity_of
from runtime.process import STARTS
from tests.system.real import Server, fingerprint, succeeded

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


NEVER_HELD = tuple(
    word
    for key in ("consecutive_max", "window_failures")
    for word in ("--set", f"supervision.engines.{key}=1000000")
)
KILLS = 20


class People:
    """They hand in one prompt after another until told to stop, and wait for each answer."""

    def __init__(self, client: Client, tokens: int) -> None:
        self._client = client
        self._tokens = tokens
        self.tasks: list[Task] = []
        self.answered: list[str] = []
        self.over = False

    async def live(self, name: int) -> None:
        number = 0
        while not self.over:
            number += 1
            prompt = f"{name} {number} [[tokens:{self._tokens}]]"
            self.tasks.append(task := await self._client.submit(prompt))
            result = await self._client.result(task.id, timeout=PATIENCE_S)
            assert result.text.startswith(fingerprint(prompt))
            assert result.task.failures == 0
            self.answered.append(task.id)

    async def all_answered(self) -> None:
        """All that are there now: nobody is to meet two deaths, for then he is a suspect."""
        for task in list(self.tasks):
            await self._client.answer(task.id, wait=True)


async def test_killed_in_mid_batch_again_and_again_the_engine_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    options = (*SIMULATED, "--set", "engine.simulated.step_ms=5", *NEVER_HELD)
    with Server(tmp_path, *options) as server:
        async with Client(server.socket) as client:
            people = People(client, tokens=10)
            async with anyio.create_task_group() as group:
                for name in range(6):
                    group.start_soon(people.live, name)
                for _ in range(KILLS):
                    status = await seen(client, lambda status: status.engines[0].running >= 3)
                    assert status.engines[0].pid is not None
                    os.kill(status.engines[0].pid, signal.SIGKILL)
                    await people.all_answered()
                people.over = True
        assert len(people.answered) == len(people.tasks) > KILLS
        times = succeeded(server)
        assert {id: times[id] for id in people.answered} == dict.fromkeys(people.answered, 1)


async def test_while_one_of_two_engines_dies_again_and_again_the_other_carries_on(
    tmp_path: Path,
) -> None:
    settings = (
        *("engine.replicas=2", "engine.max_num_seqs=2", "engine.simulated.step_ms=5"),
        *("supervision.engines.delay_first_s=200", "supervision.engines.delay_max_s=200"),
    )
    words = tuple(word for each in settings for word in ("--set", each))
    with Server(tmp_path, *SIMULATED, *words) as server:
        async with Client(server.socket) as client, anyio.create_task_group() as group:
            await seen(client, lambda status: all(e.state == "ready" for e in status.engines))
            people = People(client, tokens=2)
            for name in range(8):
                group.start_soon(people.live, name)
            survivor = (await client.status()).engines[1].pid
            while (first := (await client.status()).engines[0]).breaker == "closed":
                if first.state == "ready" and first.running and first.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(first.pid, signal.SIGKILL)
                    await people.all_answered()
            before = len(people.answered)
            await seen(client, lambda _: len(people.answered) >= before + 50)
            status = await client.status()
            assert [engine.state for engine in status.engines] == ["down", "ready"]
            assert [engine.breaker for engine in status.engines] == ["open", "closed"]
            assert status.engines[1].pid == survivor
            people.over = True
        assert set(succeeded(server).values()) == {1}
        assert server.stop() == 0
