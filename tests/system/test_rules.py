"""Rules and edits through the real command: what a task gets, and in which order tasks run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autoglm import Client
from autoglm.errors import Conflict
from tests.system.real import INSTANT, Server, autoglm

pytestmark = pytest.mark.system

NOT_YET = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
"""Nothing starts before everything is handed in, however slow the machine is."""
ONE_BY_ONE = (*INSTANT, "--set", "engine.max_num_seqs=1", "--set", "scheduler.policy=priority")
RULES = """
priority_rules:
  payment: {priority: 1, share: 40}
  metrics: 3
priority_conditions:
  - {deadline_within: 2h, weight_above: 5, priority: 0}
priority_factors: {value: 0.4, urgency_score: 0.35, size: 0.25}
"""


def submit(server: Server, *options: str) -> dict[str, Any]:
    """The task as `get` shows it."""
    done = server.ask("submit", "hello", *options)
    assert done.returncode == 0, done.stderr
    return get(server, done.stdout.strip())


def get(server: Server, id: str) -> dict[str, Any]:
    return json.loads(server.ask("get", id, "--json").stdout)["task"]


async def test_a_task_gets_its_priority_and_queue_from_the_rules(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    with Server(tmp_path, *NOT_YET, "--config", str(rules)) as server:

        def got(*options: str) -> tuple[int, str]:
            task = submit(server, *options)
            return task["priority"], task["queue"]

        assert got() == (5, "normal")
        assert got("--kind", "payment") == (1, "payment")
        assert got("--kind", "metrics") == (3, "normal")
        assert got("--kind", "payment", "--priority", "5", "--queue", "core") == (5, "core")
        assert got("--deadline", "1h", "--weight", "6") == (0, "normal")
        assert got("--deadline", "1h", "--weight", "5") == (5, "normal")
        assert got("--factor", "value=10", "--factor", "size=0") == (3, "normal")
        refused = server.ask("submit", "hello", "--factor", "vaule=3")
        assert refused.returncode == 2
        assert "no factor 'vaule'; did you mean value?" in refused.stderr
        async with Client(server.socket) as client:
            task = await client.submit("hello", factors={"urgency_score": 10})
            assert task.priority == 0


def test_wrong_rules_end_the_server_with_their_path(tmp_path: Path) -> None:
    wrong = ("--set", "priority_rules.payment.priorty=1")
    refused = autoglm("serve", "--data-dir", str(tmp_path), *INSTANT, *wrong)
    assert refused.returncode == 2
    assert "did you mean priority_rules.payment.priority?" in refused.stderr


def test_a_line_of_a_job_gets_its_priority_from_the_rules(tmp_path: Path) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text(
        '{"prompt": "a", "kind": "metrics"}\n'
        '{"prompt": "b", "weight": 6, "deadline": "1h", "factors": {"value": 3}}\n'
        '{"prompt": "c", "factors": {"vaule": 3}, "custom_id": "c"}\n'
    )
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    out = tmp_path / "out.jsonl"
    with Server(tmp_path, *INSTANT, "--config", str(rules)) as server:
        assert server.ask("run", str(given), "-o", str(out)).returncode == 1
        listed = map(json.loads, server.ask("list", "--json").stdout.splitlines())
        assert [task["priority"] for task in listed] == [0, 3]
    (error,) = map(json.loads, (tmp_path / "out.errors.jsonl").read_text().splitlines())
    assert (error["line"], error["custom_id"]) == (3, "c")


async def test_edited_tasks_run_in_their_new_order_after_a_kill(tmp_path: Path) -> None:
    server = Server(tmp_path, *NOT_YET)
    server.start()
    first, second, third = (submit(server)["id"] for _ in range(3))
    told = server.ask("edit", third, "--priority", "1")
    assert told.stdout == f"{third} pending priority 1\n", told.stderr
    assert server.ask("edit", first, "--priority", "9").returncode == 0
    assert server.ask("edit", first, "--deadline", "30d").returncode == 0
    server.kill()
    with Server(tmp_path, *ONE_BY_ONE) as server:
        async with Client(server.socket) as client:
            for id in (first, second, third):
                await client.result(id, timeout=60)
        events = list(map(json.loads, server.ask("events", "--json").stdout.splitlines()))
    started = [event["task"] for event in events if event["to"] == "running"]
    assert started == [third, second, first]
    edits = [event for event in events if event["from"] == event["to"]]
    assert [event["task"] for event in edits] == [third, first, first]
    assert all(event["by"] for event in edits)


async def test_what_can_not_be_edited_is_refused_in_a_line(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        ended = submit(server)["id"]
        async with Client(server.socket) as client:
            await client.result(ended, timeout=60)
            with pytest.raises(Conflict, match="succeeded: only what waits"):
                await client.edit(ended, priority=0)
        for options, code, said in (
            ((ended, "--priority", "0"), 3, "is succeeded: only what waits can be edited"),
            (("0" * 26, "--priority", "0"), 3, "no task"),
            ((ended,), 2, "say what to change"),
            ((ended, "--priority", "11"), 2, "0 (most urgent) to 9"),
            ((ended, "--deadline", "soon"), 2, "no duration"),
            ((ended, "x" * 26, "--priority", "1", "--if-version", "1"), 2, "name one"),
        ):
            refused = server.ask("edit", *options)
            assert refused.returncode == code, refused
            assert said in refused.stderr
            assert refused.stderr.count("\n") == 1


async def test_an_edit_can_insist_on_the_version_it_saw(tmp_path: Path) -> None:
    with Server(tmp_path, *NOT_YET) as server:
        task = submit(server)
        id, seen = task["id"], str(task["version"])
        assert server.ask("edit", id, "--priority", "2", "--if-version", seen).returncode == 0
        refused = server.ask("edit", id, "--priority", "7", "--if-version", seen)
        now = get(server, id)
        assert refused.returncode == 3
        assert f"is at version {now['version']}, not {seen}" in refused.stderr
        assert now["priority"] == 2
        async with Client(server.socket, "another") as client:
            with pytest.raises(Exception, match="no task"):
                await client.edit(id, priority=0)


async def test_who_waits_and_who_runs_is_told_about_when(tmp_path: Path) -> None:
    slow = ("--set", "engine.simulated.step_ms=250", "--set", "engine.simulated.output_tokens=4")
    one = ("--set", "engine.max_num_seqs=1")
    with Server(tmp_path, *INSTANT, *slow, *one) as server:
        async with Client(server.socket) as client:
            first = await client.submit("first")
            assert await client.eta(first.id) is not None
            tasks = [await client.submit(f"{n}") for n in range(60)]
            await client.result(first.id, timeout=60)
            assert await client.eta(first.id) is None, "it has ended"
            told = json.loads(server.ask("get", tasks[-1].id, "--json").stdout)["eta"]
            near = await client.eta(tasks[30].id)
            await client.cancel_many([task.id for task in tasks])
        assert told["ahead"] > 20
        assert 0 < told["starts_in_s"] <= told["finishes_in_s"]
        assert near is not None
        assert near.ahead < told["ahead"]
