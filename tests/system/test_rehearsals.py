"""Failures that the operator asks for: made for real, measured, and gone afterwards."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoglm import Client
from autoglm.errors import Conflict, NotAllowed, ServerUnavailable
from tests.system.real import (
    AUTOGLM,
    IMPATIENT,
    Server,
    all_answered_once,
    environment,
)
from tests.system.test_serve import one_line

pytestmark = pytest.mark.system

ALLOWED = (
    *("--set", "drills=true", "--engine", "simulated", "--set", "engine.simulated.load_s=0"),
    *("--set", "engine.max_num_seqs=4", "--set", "engine.simulated.step_ms=10"),
    *("--set", "engine.watchdog_s=2"),
)
TASKS, SLOTS = 12, 4
SHORT, LONGER = 50, 400
"""Tokens of an answer, of 10 ms each. The longer ones run for three rounds of four seconds: when
a command has started, the slots are still full.
"""
WATCHDOG_S = 2
LONG = "10m"
"""As long as a drill may last: a test that waits for its end has failed."""
PATIENCE_S = 60


async def hand_in(server: Server, tokens: int = SHORT) -> dict[str, str]:
    """Acknowledged tasks, by id."""
    prompts = [f"{number} [[tokens:{tokens}]]" for number in range(TASKS)]
    async with Client(server.socket) as client:
        return {(await client.submit(prompt)).id: prompt for prompt in prompts}


async def all_slots_taken(server: Server) -> None:
    async with Client(server.socket) as client:
        with anyio.fail_after(PATIENCE_S):
            while (await client.status()).tasks["running"] < SLOTS:
                pass


def drill(server: Server, *arguments: str) -> dict[str, Any]:
    """The report of a drill in which nothing was lost."""
    done = server.ask("drill", *arguments, "--json", timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["lost"] == report["recorded_twice"] == report["charged"] == 0
    assert report["not_back"] == []
    assert report["answered_s"] >= report["up_s"]
    return report


@pytest.mark.parametrize("kind", ["kill-engine", "hang-engine"])
async def test_a_struck_engine_is_replaced_and_what_it_had_runs_again_at_no_charge(
    tmp_path: Path, kind: str
) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        prompts = await hand_in(server, LONGER)
        await all_slots_taken(server)
        report = drill(server, kind, "engine-1")
        assert report["pid"] != report["new_pid"]
        assert report["open_before"] > 0
        assert report["put_back"] >= SLOTS
        assert report["up_s"] > report["noticed_s"]
        assert kind == "kill-engine" or report["noticed_s"] >= WATCHDOG_S / 2
        await all_answered_once(server, prompts, within_s=PATIENCE_S)


def test_an_engine_with_nothing_to_do_that_hangs_is_found_by_the_tasks_of_the_drill(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        report = drill(server, "hang-engine")
        assert report["target"] == "engine-1"
        assert report["open_before"] == 0
        assert report["put_back"] > 0
        tasks = [json.loads(line) for line in server.ask("list", "--json").stdout.splitlines()]
        assert tasks
        assert {task["tenant"] for task in tasks} == {"drill"}
        assert {task["state"] for task in tasks} == {"succeeded"}


def test_one_of_two_engines_hangs_and_the_drill_sees_it_come_back(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED, "--set", "engine.replicas=2") as server:
        done = server.ask("drill", "hang-engine", "engine-2", "--json")
        report = json.loads(done.stdout)
        assert (done.returncode, report["ok"], report["target"]) == (0, True, "engine-2")
        assert report["lost"] == report["charged"] == 0


async def test_each_actor_dies_at_its_work_and_is_back_with_nothing_lost(tmp_path: Path) -> None:
    often = (
        *("--set", "supervision.actors.consecutive_max=100"),
        *("--set", "supervision.actors.window_failures=100"),
    )
    with Server(tmp_path, *ALLOWED, *often) as server:
        status = json.loads(server.ask("status", "--json").stdout)
        for name in [actor["name"] for actor in status["actors"]]:
            prompts = await hand_in(server)
            report = drill(server, "kill-actor", name)
            assert report["target"] == name
            await all_answered_once(server, prompts, within_s=PATIENCE_S)
        status = json.loads(server.ask("status", "--json").stdout)
        assert all(actor["restarts"] for actor in status["actors"])
        assert not any(engine["error"] for engine in status["engines"])


async def test_a_slow_disk_slows_each_submit_and_is_as_fast_as_before_when_its_time_is_over(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        prompts = await hand_in(server)
        report = drill(server, "slow-disk", "300", "--for", "3s")
        assert report["slowest_submit_s"] >= 0.3
        assert report["lifted"] == "its time was over"
        assert report["up_s"] >= 3
        assert report["refused"] == {}
        await all_answered_once(server, prompts, within_s=PATIENCE_S)


async def test_a_full_disk_refuses_with_a_typed_error_and_takes_all_again_afterwards(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        prompts = await hand_in(server)
        report = drill(server, "fill-disk", "--for", "3s")
        assert report["refused"]["unavailable"] > 0
        assert report["noticed_s"] is not None
        assert report["up_s"] >= 3
        await all_answered_once(server, prompts, within_s=PATIENCE_S)
        status = json.loads(server.ask("status", "--json").stdout)
        assert status["server"]["trouble"] is None
        assert not any(actor["restarts"] for actor in status["actors"])


def test_a_hang_that_nobody_notices_in_time_is_told_and_the_engine_goes_on(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED, "--set", "engine.watchdog_s=600") as server:
        done = server.ask("drill", "hang-engine", "--timeout", "1s", "--json")
        assert done.returncode == 1
        report = json.loads(done.stdout)
        assert not report["ok"]
        assert report["lost"] == 0
        assert report["up_s"] is None
        assert "engine-1 was never noticed as down" in report["not_back"][0]
        assert server.ask("submit", "still there?", "--wait").returncode == 0
        status = json.loads(server.ask("status", "--json").stdout)
        assert status["engines"][0]["pid"] == report["pid"]
        assert not status["tasks"]["pending"] + status["tasks"]["running"]


def test_on_paper_a_report_is_plain_lines_and_ends_with_the_verdict(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        done = server.ask("drill", "kill-actor", "scheduler")
        assert done.returncode == 0
        lines = done.stdout.splitlines()
        assert lines[-1] == "recovered"
        assert any(line.startswith("lost        0 of ") for line in lines)
        assert "\x1b" not in done.stdout + done.stderr


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


def refused(server: Server, *arguments: str) -> str:
    done = server.ask("drill", *arguments)
    assert done.returncode == 3
    assert done.stdout == ""
    return one_line(done.stderr)


def test_a_server_that_was_not_told_so_allows_no_drill_and_says_how_to_allow_them(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, "--engine", "simulated") as server:
        assert "drills=true" in refused(server, "kill-engine")
        assert "drills=true" in refused(server, "slow-disk", "10")
        status = json.loads(server.ask("status", "--json").stdout)
        assert not any(actor["restarts"] for actor in status["actors"])


def test_an_unknown_actor_or_engine_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        assert "scheduler" in refused(server, "kill-actor", "shceduler")
        assert "engine-1" in refused(server, "kill-engine", "engine-7")


async def test_a_client_that_speaks_for_a_tenant_may_break_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        async with Client(server.socket, tenant="somebody") as client:
            with pytest.raises(NotAllowed, match="operator"):
                await client.drill("kill-actor", "scheduler")


# ── lifted for sure ──────────────────────────────────────────────────────────────────────────────


class Drilling:
    """A drill under way, in a process of its own."""

    def __init__(self, server: Server, *arguments: str) -> None:
        folder = ("--data-dir", str(server.folder))
        self.process = subprocess.Popen(
            [*AUTOGLM, "drill", *arguments, *folder],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        assert self.process.stderr is not None
        assert "the disk is" in self.process.stderr.readline()

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait(PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()


async def submit_s(server: Server) -> float:
    """How long it takes to hand in a task."""
    async with Client(server.socket, patience=IMPATIENT) as client:
        began = time.monotonic()
        await client.submit("how long?")
        return time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
async def test_a_client_that_ends_in_mid_drill_leaves_no_slow_disk_behind(
    tmp_path: Path, number: int
) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        drilling = Drilling(server, "slow-disk", "20000", "--for", LONG)
        drilling.end(number)
        with anyio.fail_after(PATIENCE_S):
            while await submit_s(server) > 15:
                pass
    assert "whoever began it is gone" in server.said


async def test_a_client_killed_in_mid_drill_leaves_no_full_disk_behind(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        prompts = await hand_in(server)
        drilling = Drilling(server, "fill-disk", "--for", LONG)
        assert "this is a drill" in await until_refused(server)
        drilling.end(signal.SIGKILL)
        await until_accepted(server)
        await all_answered_once(server, prompts, within_s=PATIENCE_S)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_a_server_that_ends_in_mid_drill_puts_back_what_ran_and_starts_on_a_sound_disk(
    tmp_path: Path, number: int
) -> None:
    server = Server(tmp_path, *ALLOWED, "--drain-timeout", "0s")
    with server:
        prompts = await hand_in(server)
        drilling = Drilling(server, "fill-disk", "--for", LONG)
        await until_refused(server)
        if number == signal.SIGTERM:
            assert server.stop() == 0
        else:
            server.kill()
        drilling.end(signal.SIGKILL)
    with server:
        await until_accepted(server)
        await all_answered_once(server, prompts, within_s=PATIENCE_S)


async def test_drills_go_one_at_a_time(tmp_path: Path) -> None:
    with Server(tmp_path, *ALLOWED) as server:
        drilling = Drilling(server, "slow-disk", "1", "--for", LONG)
        async with Client(server.socket, tenant=None, patience=IMPATIENT) as client:
            with pytest.raises(Conflict, match="slow-disk of store"):
                await client.drill("kill-actor", "scheduler")
        drilling.end(signal.SIGKILL)


async def refusal(server: Server) -> str | None:
    """Why a task is refused now; None: it is not."""
    try:
        await submit_s(server)
    except ServerUnavailable as error:
        return str(error)
    return None


async def until_refused(server: Server) -> str:
    with anyio.fail_after(PATIENCE_S):
        while (said := await refusal(server)) is None:
            pass
    return said


async def until_accepted(server: Server) -> None:
    with anyio.fail_after(PATIENCE_S):
        while await refusal(server) is not None:
            pass
