"""The store when the disk is full or another program holds it: refused, nothing lost, resumed."""

from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoglm import Client
from autoglm.errors import AutoGLMError, ServerUnavailable
from tests.system.real import (
    IMPATIENT,
    INSTANT,
    Server,
    all_answered_once,
    autoglm,
    sound,
)
from tests.system.test_serve import one_line

pytestmark = pytest.mark.system

SLOW = (
    *("--engine", "simulated", "--set", "engine.simulated.load_s=0"),
    *("--set", "engine.max_num_seqs=4", "--set", "engine.simulated.step_ms=10"),
)
PROMPT = "a prompt of some length " * 200
# Four seconds each: what runs when the disk is found full was running before it was.
TOKENS = 400
RECOVERY_S = 30
BUSY_TIMEOUT_S, HELD_S = 5, 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = "size=4m,mode=0700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user can't mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Write a file that takes all that is left of its disk."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 4096):
            pass


async def refusal(server: Server, prompt: str) -> AutoGLMError | None:
    """What a client is told that hands in `prompt` and does not ask twice."""
    async with Client(server.socket, patience=IMPATIENT) as client:
        try:
            await client.submit(prompt)
        except AutoGLMError as error:
            return error
    return None


async def hand_in(server: Server, count: int) -> dict[str, str]:
    """Acknowledged tasks, by id: some run, some wait."""
    async with Client(server.socket) as client:
        prompts = [f"{number} [[tokens:{TOKENS}]]" for number in range(count)]
        return {(await client.submit(prompt)).id: prompt for prompt in prompts}


def all_slots_taken(server: Server) -> Any:
    """The status at which the engine ran as many tasks as it can."""
    while True:
        status = json.loads(server.ask("status", "--json").stdout)
        if status["tasks"]["running"] == 4:
            return status


async def outlives(server: Server, full: Callable[[], None], free: Callable[[], None]) -> None:
    """The whole claim, for one way in which the store can't grow any more."""
    prompts = await hand_in(server, 8)
    before = all_slots_taken(server)
    full()
    refusals = [await refusal(server, f"{number} {PROMPT}") for number in range(20)]
    for error in refusals:
        assert isinstance(error, ServerUnavailable), "acknowledged on a full disk"
        assert error.retry_after
        assert str(server.store) in str(error)
        assert "full" in str(error)
        assert "\n" not in str(error)
    async with Client(server.socket) as client:
        # What runs ends while the disk is full: its outcome has to wait.
        with anyio.fail_after(RECOVERY_S):
            while any(engine.running for engine in (await client.status()).engines):
                pass
        status = await client.status()
        assert str(server.store) in (status.server.trouble or "")
        assert status.tasks["running"] > 0
    assert sound(server.store)
    free()
    await all_answered_once(server, prompts, within_s=RECOVERY_S)
    with anyio.fail_after(RECOVERY_S):
        while await refusal(server, "afterwards") is not None:
            pass
    after = json.loads(server.ask("status", "--json").stdout)
    assert after["server"]["pid"] == before["server"]["pid"]
    assert after["server"]["trouble"] is None
    assert not any(actor["restarts"] for actor in after["actors"])
    assert server.stop() == 0
    assert sound(server.store)


async def test_a_full_disk_refuses_what_is_new_loses_nothing_and_goes_on_when_freed(
    small_disk: Path,
) -> None:
    with Server(small_disk, *SLOW) as server:
        ballast = small_disk / "ballast"
        await outlives(server, full=lambda: fill(ballast), free=ballast.unlink)


async def test_a_limit_on_the_size_of_files_is_outlived_like_a_full_disk(tmp_path: Path) -> None:
    def limit(size_bytes: int) -> None:
        hard = resource.RLIM_INFINITY
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))

    with Server(tmp_path, *SLOW) as server:
        wal = server.store.with_name(server.store.name + "-wal")
        await outlives(
            server,
            full=lambda: limit(wal.stat().st_size),
            free=lambda: limit(resource.RLIM_INFINITY),
        )


def test_a_server_started_on_a_full_disk_says_so_in_one_line_and_leaves_nothing_half_made(
    small_disk: Path,
) -> None:
    with Server(small_disk, *INSTANT):
        pass  # the folder and its lock are there
    (small_disk / "queue.sqlite3").unlink()
    ballast = small_disk / "ballast"
    fill(ballast)
    refused = autoglm("serve", *INSTANT, "--data-dir", str(small_disk))
    assert refused.returncode == 2
    assert str(small_disk) in one_line(refused.stderr)
    assert "space" in refused.stderr
    ballast.unlink()
    with Server(small_disk, *INSTANT) as server:
        assert server.ask("submit", "hello", "--wait").returncode == 0


async def test_a_server_killed_and_started_again_on_a_full_disk_says_so_and_loses_nothing(
    small_disk: Path,
) -> None:
    with Server(small_disk, *SLOW) as server:
        prompts = await hand_in(server, 8)
        all_slots_taken(server)
        server.kill()
    ballast = small_disk / "ballast"
    fill(ballast)
    refused = autoglm("serve", *SLOW, "--data-dir", str(small_disk))
    assert refused.returncode == 2
    assert str(small_disk) in one_line(refused.stderr)
    assert "space" in refused.stderr
    ballast.unlink()
    with Server(small_disk, *SLOW) as server:
        await all_answered_once(server, prompts, within_s=RECOVERY_S)


async def test_a_store_that_another_program_holds_is_waited_for(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        prompts = await hand_in(server, 12)
        before = json.loads(server.ask("status", "--json").stdout)
        with contextlib.closing(sqlite3.connect(server.store, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            refused: list[AutoGLMError | None] = []
            async with anyio.create_task_group() as group:

                async def submit() -> None:
                    refused.append(await refusal(server, PROMPT))

                for _ in range(5):
                    group.start_soon(submit)
                with anyio.fail_after(HELD_S):
                    async with Client(server.socket) as client:
                        while (await client.status()).server.trouble is None:
                            pass
                        for id in prompts:
                            await client.get(id)
                await anyio.sleep(HELD_S - BUSY_TIMEOUT_S)
                refused.append(await refusal(server, PROMPT))
            for error in refused:
                assert isinstance(error, ServerUnavailable), "acknowledged while it was held"
                assert "another program holds it" in str(error)
                assert str(server.store) in str(error)
            other.execute("ROLLBACK")
        await all_answered_once(server, prompts, within_s=RECOVERY_S)
        after = json.loads(server.ask("status", "--json").stdout)
        assert after["server"]["pid"] == before["server"]["pid"]
        assert after["server"]["trouble"] is None
        assert not any(actor["restarts"] for actor in after["actors"])
        assert after["tasks"]["succeeded"] == len(prompts)
