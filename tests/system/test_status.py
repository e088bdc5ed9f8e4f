"""`autoglm status --json` of a real server at work: shares, what runs longest, what failed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.real import Server

pytestmark = pytest.mark.system

SLOW = (
    *("--engine", "simulated", "--set", "engine.simulated.load_s=0"),
    *("--set", "engine.max_num_seqs=2", "--set", "engine.simulated.step_ms=20"),
    *("--set", "engine.faults=true", "--set", "retry.max_attempts=1"),
    *("--set", "queues.core.weight=3", "--set", "tenants.gold.weight=2"),
)


def status(server: Server) -> dict[str, Any]:
    return json.loads(server.ask("status", "--json").stdout)


def test_a_server_at_work_tells_who_gets_what_and_what_is_slow_or_failed(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server:
        dead = server.ask("submit", "[[invalid]]", "--tenant", "gold", "--wait")
        assert dead.returncode == 1
        server.ask("submit", "one [[slow:60]]", "--tenant", "gold", "--queue", "core")
        server.ask("submit", "two [[slow:60]]\x1b[2J", "--tenant", "iron")
        for _ in range(3):
            server.ask("submit", "three", "--tenant", "iron")
        until = time.monotonic() + 30
        while len((seen := status(server))["slowest"]) < 2 and time.monotonic() < until:
            pass
    assert [(each["text"], each["tenant"], each["queue"]) for each in seen["slowest"]] == [
        ("one [[slow:60]]", "gold", "core"),
        ("two [[slow:60]]\x1b[2J", "iron", "normal"),
    ]
    assert seen["slowest"][0]["ran_s"] >= seen["slowest"][1]["ran_s"] >= 0
    [failure] = seen["failures"]
    assert (failure["tenant"], failure["state"], failure["attempt"]) == ("gold", "dead", 1)
    tenants = {each["name"]: each["service"] for each in seen["tenants"]}
    assert (tenants["gold"]["running"], tenants["gold"]["weight"]) == (1, 2)
    assert tenants["iron"]["waiting"] >= 1
    queues = {each["name"]: each["service"] for each in seen["queues"]}
    assert queues["core"]["weight"] == 3
    [engine] = seen["engines"]
    assert 0 <= engine["kv_usage"] <= 1
    assert engine["restarts"] == 0
