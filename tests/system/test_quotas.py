"""Limits on what waits, by the real command: refused in time, and waited out by who has time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm import Client
from autoglm.errors import ServerBusy
from autoglm.retry import Patience
from tests.system.real import INSTANT, Server, autoglm

pytestmark = pytest.mark.system

NOT_YET = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
REJECT = ("--set", "tenants.default.over_quota=reject")
AT_ONCE = Patience(busy_s=0)


async def test_a_tenant_at_its_limit_is_told_so_and_after_a_restart_too(tmp_path: Path) -> None:
    limit = ("--set", "tenants.default.max_pending=3")
    for room in (3, 0):
        with Server(tmp_path, *NOT_YET, *limit) as server:
            async with Client(server.socket, patience=AT_ONCE) as client:
                for _ in range(room):
                    await client.submit("hello")
                with pytest.raises(ServerBusy, match="tenant default has 3 tasks waiting") as told:
                    await client.submit("hello")
                assert told.value.retry_after is not None
            async with Client(server.socket, "other", patience=AT_ONCE) as other:
                await other.submit("hello")


async def test_the_command_is_refused_in_one_line(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET, "--set", "scheduler.max_pending_bytes=1") as server:
        said = autoglm("submit", "hello", "--socket", str(server.socket))
    assert said.returncode == 3
    assert said.stderr.startswith("autoglm: the server has 0 bytes waiting")
    assert said.stderr.count("\n") == 1


@pytest.mark.parametrize("limit", ["scheduler.max_pending=7", "tenants.default.max_pending=7"])
async def test_run_goes_on_as_there_is_room(tmp_path: Path, limit: str) -> None:
    lines = [json.dumps({"prompt": f"prompt {n}"}) for n in range(60)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    out = tmp_path / "out.jsonl"
    with Server(tmp_path / "data", *INSTANT, "--set", limit) as server:
        files = (str(tmp_path / "in.jsonl"), "-o", str(out))
        done = autoglm("run", *files, "--socket", str(server.socket))
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == len(lines)


@pytest.mark.parametrize("ordered", [True, False])
async def test_map_goes_on_as_there_is_room(tmp_path: Path, ordered: bool) -> None:
    with Server(tmp_path, *INSTANT, "--set", "scheduler.max_pending=5") as server:
        async with Client(server.socket) as client:
            prompts = [str(n) for n in range(60)]
            found = [each async for each in client.map(prompts, ordered=ordered)]
    assert len(found) == len(prompts)


async def submit_many(client: Client, count: int) -> None:
    for _ in range(count):
        await client.submit("hello")


def times(server: Server, state: str) -> list[int]:
    """When each task first was in `state`, in ms."""
    events = [json.loads(line) for line in server.ask("events", "--json").stdout.splitlines()]
    return [event["at"] for event in events if event["to"] == state]


async def test_tasks_a_second_are_held_and_all_answered(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT, "--set", "tenants.default.tasks_per_s=10") as server:
        async with Client(server.socket) as client:
            assert len([each async for each in client.map(map(str, range(45)))]) == 45
        at = times(server, "running")
    assert at[-1] - at[0] >= 2000, "ten at once, and 35 at ten a second"


async def test_tasks_a_second_are_refused_and_map_backs_off(tmp_path: Path) -> None:
    rate = ("--set", "tenants.default.tasks_per_s=10", *REJECT)
    with Server(tmp_path, *INSTANT, *rate) as server:
        async with Client(server.socket) as client:
            assert len([each async for each in client.map(map(str, range(25)))]) == 25
        at = times(server, "pending")
        async with Client(server.socket, patience=AT_ONCE) as client:
            with pytest.raises(ServerBusy, match="10 tasks a second"):
                await submit_many(client, 10_000)
    assert at[-1] - at[0] >= 1000


async def test_tokens_of_a_minute_are_refused_with_the_time_to_come_back(tmp_path: Path) -> None:
    rate = (
        "--set",
        "tenants.default.tokens_per_min=5",
        "--set",
        "tenants.default.over_quota=reject",
    )
    with Server(tmp_path, *INSTANT, *rate) as server:
        async with Client(server.socket, patience=AT_ONCE) as client:
            await client.result((await client.submit("hello")).id, timeout=60)
            with pytest.raises(ServerBusy, match="tokens of this minute") as told:
                await client.submit("hello")
            assert told.value.retry_after is not None
            assert told.value.retry_after > 1
        async with Client(server.socket, "other") as other:
            await other.result((await other.submit("hello")).id, timeout=60)


async def test_tokens_of_a_minute_hold_one_tenant_and_not_the_others(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT, "--set", "tenants.default.tokens_per_min=5") as server:
        async with Client(server.socket) as client, Client(server.socket, "other") as other:
            await client.result((await client.submit("hello")).id, timeout=60)
            held = await client.submit("hello")
            await other.result((await other.submit("hello")).id, timeout=60)
            assert (await client.get(held.id)).state == "pending"
