"""Jobs whose lines bring keys of their own, and files that change between two runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.system.real import AUTOGLM, INSTANT, Server, autoglm, environment

pytestmark = pytest.mark.system

NEVER_LOADED = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")


def write_input(folder: Path, prompts: dict[str, str]) -> None:
    lines = [json.dumps({"task_id": id, "input": text}) for id, text in prompts.items()]
    (folder / "in.jsonl").write_text("\n".join(lines))


def command(folder: Path, *options: str) -> tuple[str, ...]:
    files = (str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"))
    return ("run", *files, "--data-dir", str(folder / "data"), *options)


def answered(folder: Path) -> list[str]:
    lines = (folder / "out.jsonl").read_text().splitlines()
    return [json.loads(line)["custom_id"] for line in lines]


def failures(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (folder / "out.errors.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text.splitlines()]


def test_fresh_answers_lines_with_keys_anew_after_a_job_that_was_broken_off(tmp_path: Path) -> None:
    write_input(tmp_path, {"a": "one", "b": "two"})
    with Server(tmp_path / "data", *NEVER_LOADED) as server:
        process = subprocess.Popen(
            [*AUTOGLM, *command(tmp_path)], stderr=subprocess.DEVNULL, env=environment()
        )
        while json.loads(server.ask("status", "--json").stdout)["tasks"]["pending"] < 2:
            pass
        process.kill()
        process.wait()
    done = autoglm(*command(tmp_path, *INSTANT, "--fresh"))
    assert (done.returncode, failures(tmp_path)) == (0, [])
    assert answered(tmp_path) == ["a", "b"]


def test_fresh_takes_a_key_with_other_content_than_before(tmp_path: Path) -> None:
    write_input(tmp_path, {"a": "one", "b": "two"})
    assert autoglm(*command(tmp_path, *INSTANT)).returncode == 0
    write_input(tmp_path, {"a": "one, mended", "b": "two"})
    done = autoglm(*command(tmp_path, *INSTANT, "--fresh"))
    assert (done.returncode, failures(tmp_path)) == (0, [])
    assert answered(tmp_path) == ["a", "b"]


def test_a_long_job_that_is_cancelled_is_cancelled_when_the_command_answers(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n' * 1700)
    with Server(tmp_path / "data", *NEVER_LOADED) as server:
        job = start_and_kill(tmp_path, server, 1700)
        done = server.ask("cancel", "--job", job, "--json")
        assert json.loads(done.stdout) == {"job": job, "cancelled": 1700}
        tasks = json.loads(server.ask("status", "--json").stdout)["tasks"]
        assert (tasks["pending"], tasks["cancelled"]) == (0, 1700)


def test_fresh_begins_at_once_and_the_old_job_is_cancelled_though_the_server_is_killed(
    tmp_path: Path,
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "x"}\n' * 1700)
    with Server(tmp_path / "data", *NEVER_LOADED) as server:
        old = start_and_kill(tmp_path, server, 1700)
        (tmp_path / "in.jsonl").write_text('{"prompt": "y"}\n')
        process = subprocess.Popen(
            [*AUTOGLM, *command(tmp_path, "--fresh")], stderr=subprocess.DEVNULL, env=environment()
        )
        while server.ask("list", "--limit", "1", "--json").stdout.count(old):
            pass
        server.kill()
        process.kill()
        process.wait()
    done = autoglm(*command(tmp_path, *INSTANT))
    assert (done.returncode, len(answered(tmp_path))) == (0, 1)
    with Server(tmp_path / "data", *NEVER_LOADED) as server:
        while (tasks := json.loads(server.ask("status", "--json").stdout)["tasks"])["pending"]:
            pass
        listed = server.ask("list", "--job", old, "--state", "cancelled", "--json").stdout
    assert listed.count("\n") + tasks["succeeded"] == 1701


def start_and_kill(folder: Path, server: Server, lines: int) -> str:
    """Begin a job, kill its run once so many lines are in, and tell its id."""
    process = subprocess.Popen(
        [*AUTOGLM, *command(folder)], stderr=subprocess.DEVNULL, env=environment()
    )
    while json.loads(server.ask("status", "--json").stdout)["tasks"]["pending"] < lines:
        pass
    process.kill()
    process.wait()
    return json.loads(server.ask("list", "--limit", "1", "--json").stdout)["job"]
