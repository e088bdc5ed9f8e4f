"""Pause, resume, and queues that let nothing wait for long, by the real command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from autoglm import Client, wire
from autoglm.errors import ServerBusy, TaskExpired
from autoglm.ids import Ids
from autoglm.retry import Patience
from autoglm.types import TaskSpec
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

ID = Ids().mint()
"""Of nothing."""
NOT_YET = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")


def overflow(rule: str) -> tuple[str, ...]:
    return ("--set", "queues.core.max_wait=0.1s", "--set", f"queues.core.overflow={rule}")


def told(server: Server, *arguments: str) -> list[Any]:
    done = server.ask(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


async def test_a_paused_queue_takes_work_in_and_runs_it_once_resumed(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        (queue,) = told(server, "pause", "--queue", "core")
        assert queue["paused"] is True
        assert queue["paused_by"]
        async with Client(server.socket) as client:
            held = await client.submit("hello", queue="core")
            await client.result((await client.submit("hello")).id, timeout=60)
            assert (await client.get(held.id)).state == "pending"
        server.kill()
        server.start()
        states = {each["name"]: each["paused"] for each in told(server, "queue", "list")}
        assert states == {"core": True, "normal": False, "background": False}
        assert "paused by" in server.ask("status").stdout
        async with Client(server.socket) as client:
            await client.result((await client.submit("hello")).id, timeout=60)
            assert (await client.get(held.id)).state == "pending"
            assert server.ask("resume", "--queue", "core").stdout == "core open\n"
            await client.result(held.id, timeout=60)


async def test_a_paused_task_outlives_the_server_and_runs_once_resumed(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET) as server:
        async with Client(server.socket) as client:
            id = (await client.submit("hello")).id
        assert server.ask("pause", id).stdout == f"{id} paused\n"
        server.kill()
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket) as client:
            await client.result((await client.submit("hello")).id, timeout=60)
            assert (await client.get(id)).state == "paused"
            assert [each["id"] for each in told(server, "list", "--state", "paused")] == [id]
            told(server, "resume", id)
            await client.result(id, timeout=60)
        steps = [(each["to"], "by" in each) for each in told(server, "events", "--task", id)]
    assert steps[:3] == [("pending", False), ("paused", True), ("pending", True)]


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        for arguments, code, said in (
            (("pause",), 2, "pause: give either ids or --job or a queue"),
            (("resume", "x", "--queue", "core"), 2, "resume: give either"),
            (("pause", "--queue", "cor"), 2, "did you mean core?"),
            (("pause", "nothing"), 2, "no queue 'nothing'"),
            (("pause", ID), 3, f"no task {ID}"),
            (("resume", "--job", "nothing"), 3, "no job nothing"),
            (("archive", "requeue"), 2, "archive requeue: give either ids or --all"),
        ):
            done = server.ask(*arguments)
            assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
            assert said in done.stderr


async def test_a_wait_that_is_too_long_ends_with_the_reason(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET, *overflow("reject")) as server:
        async with Client(server.socket) as client:
            id = (await client.submit("hello", queue="core")).id
            with pytest.raises(TaskExpired, match="waited longer than queue 'core' lets it"):
                await client.result(id, timeout=60)


async def test_the_archive_is_listed_and_requeued(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET, *overflow("archive")) as server:
        async with Client(server.socket) as client:
            ids = {(await client.submit("hello", queue="core")).id for _ in range(3)}
            async for event in client.events(follow=True):
                if event.to_state == "archived":
                    ids.discard(event.task)
                if not ids:
                    break
        assert len(told(server, "list", "--state", "archived")) == 3
    with Server(tmp_path, *INSTANT) as server:
        archived = told(server, "archive", "list")
        assert [each["error"]["code"] for each in archived] == ["queue_wait"] * 3
        one = archived[0]["id"]
        assert server.ask("archive", "requeue", one).stdout.startswith(one)
        assert server.ask("archive", "requeue", "--all").stdout == "2 requeued\n"
        async with Client(server.socket) as client:
            for each in archived:
                await client.result(each["id"], timeout=60)
        assert not told(server, "archive", "list")


async def test_a_job_is_paused_and_resumed(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET) as server:
        async with Client(server.socket, tenant=None) as client:
            job = await _job_of(client, 5)
            assert server.ask("pause", "--job", job).stdout == "5 paused\n"
            assert server.ask("pause", "--job", job).stdout == "0 paused\n"
            assert (await client.status()).tasks["paused"] == 5
            assert told(server, "resume", "--job", job) == [{"job": job, "resumed": 5}]


async def _job_of(client: Client, count: int) -> str:
    opened = await client.session.call(wire.OpenJob(0, "/out", "i", "o"), wire.JobOpened)
    ids = Ids()
    lines = tuple(
        wire.JobLine(n, task=TaskSpec(ids.mint(), prompt="x")) for n in range(1, count + 1)
    )
    await client.session.call(
        wire.SubmitLines(0, opened.job, lines, last=True), wire.LinesSubmitted
    )
    return opened.job


async def test_while_core_waits_too_long_lower_queues_take_nothing_in(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET, *overflow("refuse_lower")) as server:
        async with Client(server.socket, patience=Patience(busy_s=0)) as client:
            id = (await client.submit("hello", queue="core")).id

            async def hand_in_until_refused() -> None:
                while True:
                    await client.submit("hello", queue="normal")

            with anyio.fail_after(60), pytest.raises(ServerBusy, match="which weighs less") as told:
                await hand_in_until_refused()
            assert told.value.retry_after is not None
            await client.submit("hello", queue="core")
            assert (await client.get(id)).state == "pending"


async def test_a_drained_queue_finishes_what_it_has_and_refuses_what_is_new(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket, patience=Patience(busy_s=0)) as client:
            told(server, "pause", "core")
            id = (await client.submit("hello", queue="core")).id
            (queue,) = told(server, "drain", "core")
            assert (queue["draining"], queue["paused"]) == (True, False)
            await client.result(id, timeout=60)
            with pytest.raises(ServerBusy, match="is being drained"):
                await client.submit("hello", queue="core")
            assert server.ask("queue", "resume", "core").stdout == "core open\n"
            await client.submit("hello", queue="core")
        names = [each["name"] for each in told(server, "queues")]
        assert names == ["core", "normal", "background"]
        (tenant,) = told(server, "tenants")
        assert tenant["name"] == "default"
        assert set(tenant["service"]) == {
            *("weight", "due", "used", "running", "max_running", "waiting", "finishes_in_s"),
            "held",
        }
