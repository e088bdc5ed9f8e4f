"""Shares and caps through the real command: read from the event log."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from autoglm import Client
from tests.system.real import Server

pytestmark = pytest.mark.system

SLOTS = 4
NOT_YET = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
"""Nothing starts before everything is handed in, however slow the machine is."""
SLOW = (
    *("--engine", "simulated", "--set", "engine.simulated.load_s=0"),
    *("--set", f"engine.max_num_seqs={SLOTS}", "--set", "engine.simulated.step_ms=1"),
)
AHEAD = SLOTS + 1
"""What a batcher holds in the engine and ready for it."""


def log(server: Server) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.ask("events", "--json").stdout.splitlines()]


async def hand_in(server: Server, tenant: str, count: int, **more: Any) -> list[str]:
    async with Client(server.socket, tenant) as client:
        return [(await client.submit(f"{n}", **more)).id for n in range(count)]


async def all_ended(server: Server, tenant: str, ids: list[str]) -> None:
    async with Client(server.socket, tenant) as client:
        for id in ids:
            await client.result(id, timeout=60)


def started(events: list[dict[str, Any]]) -> list[str]:
    """Whose tasks were started, in order."""
    return [event["tenant"] for event in events if event["to"] == "running"]


async def test_a_tenant_with_few_tasks_does_not_wait_for_one_with_many(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET) as server:
        await hand_in(server, "many", 100)
        few = await hand_in(server, "few", 5)
    with Server(tmp_path, *SLOW) as server:
        await all_ended(server, "few", few)
        order = started(log(server))
    last = len(order) - 1 - order[::-1].index("few")
    assert last < 2 * len(few) + AHEAD


async def test_tenants_get_tokens_by_their_weights(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET) as server:
        light = await hand_in(server, "light", 60)
        heavy = await hand_in(server, "heavy", 60)
    with Server(tmp_path, *SLOW, "--set", "tenants.heavy.weight=3") as server:
        await all_ended(server, "heavy", heavy)
        await all_ended(server, "light", light)
        order = started(log(server))
    both = Counter(order[:80])
    assert both["heavy"] == pytest.approx(60, abs=AHEAD), "three quarters while both wait"


@pytest.mark.parametrize("cap", ["queues.background.max_running=2", "tenants.capped.max_running=2"])
async def test_no_more_of_a_queue_or_a_tenant_run_than_may(tmp_path: Path, cap: str) -> None:
    with Server(tmp_path, *NOT_YET) as server:
        capped = await hand_in(server, "capped", 20, queue="background")
        others = await hand_in(server, "free", 20)
    with Server(tmp_path, *SLOW, "--set", cap) as server:
        await all_ended(server, "capped", capped)
        await all_ended(server, "free", others)
        events = log(server)
    running = most = 0
    for event in events:
        if event["tenant"] == "capped":
            running += (event["to"] == "running") - (event["from"] == "running")
            most = max(most, running)
    assert most == 2
