"""Retries with the real command: limits of a task's own, and pauses that outlive the server."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

FAULTS = (*INSTANT, "--set", "engine.faults=true")
QUICK = (*FAULTS, "--set", "retry.base_ms=1")
ENDLESS = "[[slow:1000]]"


def task_of(server: Server, id: str) -> dict[str, Any]:
    return json.loads(server.ask("get", id, "--json").stdout)["task"]


def ended(server: Server, *arguments: str) -> dict[str, Any]:
    """The task that `submit` made, once it has ended without an answer."""
    seen = server.ask("submit", *arguments, "--wait", "--json")
    assert seen.returncode == 1
    return json.loads(seen.stdout)["task"]


def pause_ends(server: Server, id: str, attempt: int) -> list[int]:
    """When it became pending again after this attempt, Unix ms, if it has yet."""
    events = map(json.loads, server.ask("events", "--task", id, "--json").stdout.splitlines())
    after = [event for event in events if event["attempt"] == attempt]
    return [event["at"] for event in after if event["to"] == "pending"]


@pytest.mark.parametrize(
    ("prompt", "options", "failures", "code"),
    [
        ("[[error]]", (), 3, "engine_error"),
        ("[[error]]", ("--max-attempts", "5"), 5, "engine_error"),
        ("[[error]]", ("--max-attempts", "1"), 1, "engine_error"),
        ("[[invalid]]", ("--max-attempts", "5"), 1, "invalid_request"),
        (ENDLESS, ("--timeout", "0.05s"), 3, "timeout"),
        (ENDLESS, ("--timeout", "0.05s", "--max-attempts", "2"), 2, "timeout"),
    ],
)
def test_a_task_is_tried_as_often_as_its_error_and_its_own_limits_allow(
    prompt: str, options: tuple[str, ...], failures: int, code: str, tmp_path: Path
) -> None:
    with Server(tmp_path, *QUICK) as server:
        task = ended(server, prompt, *options)
    assert (task["state"], task["failures"]) == ("dead", failures)
    assert task["error"]["code"] == code


def test_expires_ends_all_attempts_together(tmp_path: Path) -> None:
    with Server(tmp_path, *QUICK) as server:
        task = ended(
            server, ENDLESS, "--timeout", "0.2s", "--max-attempts", "1000", "--expires", "1s"
        )
    assert task["state"] == "expired"
    assert 1 < task["attempt"] < 6


def test_a_pause_before_a_retry_survives_kill_9(tmp_path: Path) -> None:
    """The store says when each pause is over, and nobody tries before, whoever was killed."""
    pauses = ("--set", "retry.base_ms=10000", "--set", "retry.cap_ms=10000")
    with Server(tmp_path, *FAULTS, *pauses) as server:
        tasks = [server.ask("submit", "[[error]]", "--json").stdout for _ in range(6)]
        ids = [json.loads(task)["id"] for task in tasks]
        while not all(task_of(server, id)["failures"] for id in ids):
            pass
        server.kill()
        due = _due(server)
        server.start()
        assert due
        for id, attempt, at in due:
            while not (ends := pause_ends(server, id, attempt)):
                pass
            assert ends[0] >= at


def _due(server: Server) -> list[tuple[str, int, int]]:
    """`(id, attempt, Unix ms)`: when the pauses of those that wait one out are over."""
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        query = "SELECT id, attempt, wake_at FROM task WHERE state = 'retrying'"
        return cx.execute(query).fetchall()
