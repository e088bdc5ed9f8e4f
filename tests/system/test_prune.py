"""`autoglm prune` and `retention`, through the real command."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.system.real import INSTANT, Server, autoglm

pytestmark = pytest.mark.system


def pruned(server: Server, age: str = "0s") -> dict[str, int]:
    done = server.ask("prune", "--older-than", age, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def run_command(folder: Path, *options: str) -> tuple[str, ...]:
    files = (str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"))
    return ("run", *files, "--data-dir", str(folder / "data"), *options)


def test_prune_removes_what_has_ended_and_says_what(tmp_path: Path) -> None:
    with Server(tmp_path / "data", *INSTANT) as server:
        for text in ("one", "two"):
            assert server.ask("submit", text, "--wait").returncode == 0
        assert pruned(server, "1h") == {"tasks": 0, "results": 0, "events": 0, "jobs": 0}
        done = server.ask("prune", "--older-than", "0s")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "removed 2 tasks, 2 results, 6 events, 0 jobs\n"
        assert server.ask("list").stdout == ""
        assert json.loads(server.ask("status", "--json").stdout)["tasks"]["succeeded"] == 0
        id = server.ask("submit", "three").stdout.strip()
        server.ask("get", id, "--wait")
        first = json.loads(server.ask("events", "--json").stdout.splitlines()[0])
        assert first["seq"] == 7, "numbers are not given out again"


def test_prune_wants_an_age_and_a_server(tmp_path: Path) -> None:
    assert autoglm("prune", "--data-dir", str(tmp_path)).returncode == 2
    done = autoglm("prune", "--older-than", "30d", "--data-dir", str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")


def test_a_server_with_a_limit_prunes_when_it_starts(tmp_path: Path) -> None:
    with Server(tmp_path / "data", *INSTANT) as server:
        server.ask("submit", "old", "--wait")
    time.sleep(1.1)
    with Server(tmp_path / "data", *INSTANT, "--set", "retention.results=1s") as server:
        began = time.monotonic()
        while server.ask("list").stdout:
            assert time.monotonic() - began < 20
        seen: list[dict[str, Any]] = json.loads(server.ask("status", "--json").stdout)["actors"]
        assert [actor["state"] for actor in seen if actor["name"] == "retention"] == ["running"]


def test_an_output_whose_job_was_pruned_is_neither_mixed_nor_answered_twice(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(f'{{"prompt": "{n}"}}\n' for n in range(20)))
    out = tmp_path / "out.jsonl"
    with Server(tmp_path / "data", *INSTANT) as server:
        assert autoglm(*run_command(tmp_path)).returncode == 0
        before = out.read_bytes()
        assert pruned(server) == {"tasks": 20, "results": 20, "events": 60, "jobs": 1}
        for _ in range(2):
            again = autoglm(*run_command(tmp_path))
            assert again.returncode == 3
            assert again.stderr.count("\n") == 1
            assert "answers of a job that was pruned" in again.stderr
            assert "--fresh" in again.stderr
            assert out.read_bytes() == before
        assert server.ask("list").stdout == "", "nothing was generated"
        fresh = autoglm(*run_command(tmp_path, "--fresh"))
        assert fresh.returncode == 0, fresh.stderr
    texts = [
        [json.loads(line)["response"]["body"]["choices"] for line in each.splitlines()]
        for each in (before, out.read_bytes())
    ]
    assert texts[0] == texts[1]
