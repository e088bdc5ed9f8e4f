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
AT_ONCE = Patience(busy_s=0)


async def test_a_tenant_at_its_limit_is_told_so_and_after_a_restart_too(tmp_path: Path) -> None:
    limit = ("--set", "tenants.default.max_pending=3")
    for expected in (3, 0):
        with Server(tmp_path, *NOT_YET, *limit) as server:
            async with Client(server.socket, patience=AT_ONCE) as client:
                accepted = 0
                with pytest.raises(ServerBusy, match="tenant default has 3 tasks waiting") as told:
                    for _ in range(4):
                        await client.submit("hello")
                        accepted += 1
                assert accepted == expected
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
    lines = [json.dumps({"prompt": f"prompt {n}"}) for n in range(300)]
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
            prompts = [str(n) for n in range(200)]
            found = [each async for each in client.map(prompts, ordered=ordered)]
    assert len(found) == len(prompts)
