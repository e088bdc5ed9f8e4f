"""`autoglm run`: every line answered once and in order, whatever is killed on the way."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system.real import AUTOGLM, INSTANT, Server, autoglm, environment, gone

pytestmark = pytest.mark.system

SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=4")
LINES = 1500


def write_input(folder: Path, lines: int = LINES) -> list[str]:
    prompts = [f"question {number}" for number in range(1, lines + 1)]
    text = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts)
    (folder / "in.jsonl").write_text(text)
    return prompts


def write_and_make(folder: Path, lines: int) -> list[str]:
    folder.mkdir()
    return write_input(folder, lines)


def command(folder: Path, *options: str) -> tuple[str, ...]:
    data = folder / "data"
    return (
        *("run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl")),
        *("--data-dir", str(data), *options),
    )


def results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def line_of(result: dict[str, Any]) -> int:
    return int(result["id"].rpartition("-")[2])


def text_of(result: dict[str, Any]) -> str:
    return result["response"]["body"]["choices"][0]["message"]["content"]


def assert_each_answered_once_in_order(folder: Path, prompts: list[str]) -> None:
    found = results(folder)
    assert [line_of(result) for result in found] == list(range(1, len(prompts) + 1))
    for prompt, result in zip(prompts, found, strict=True):
        assert text_of(result).startswith(hashlib.sha256(prompt.encode()).hexdigest()[:16])


def start(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*AUTOGLM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )


def wait_until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s


def answered(folder: Path) -> int:
    try:
        return (folder / "out.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def successes(folder: Path) -> int:
    """How many attempts were recorded as succeeded in the event log."""
    with Server(folder / "data", *INSTANT) as server:
        events = server.ask("events", "--json").stdout.splitlines()
    return sum(json.loads(event)["to"] == "succeeded" for event in events)


def test_answers_a_file_in_order_and_starts_and_ends_its_own_server(tmp_path: Path) -> None:
    prompts = write_input(tmp_path)
    done = autoglm(*command(tmp_path, *INSTANT))
    assert done.returncode == 0, done.stderr
    assert_each_answered_once_in_order(tmp_path, prompts)
    assert autoglm("status", "--data-dir", str(tmp_path / "data")).returncode == 3


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    prompts = write_input(tmp_path)
    for share in (0.2, 0.5, 0.8):
        process = start(*command(tmp_path, *SLOW))
        wait_until(lambda share=share: answered(tmp_path) > LINES * share)
        process.kill()
        process.wait()
    with (tmp_path / "out.jsonl").open("ab") as out:
        out.write(b'{"id":"torn')
    done = autoglm(*command(tmp_path, *SLOW))
    assert done.returncode == 0, done.stderr
    assert_each_answered_once_in_order(tmp_path, prompts)
    assert successes(tmp_path) == len(prompts)


def test_a_killed_run_takes_its_own_server_along(tmp_path: Path) -> None:
    write_input(tmp_path)
    process = start(*command(tmp_path, *SLOW))
    wait_until(lambda: answered(tmp_path) > 0)
    data = str(tmp_path / "data")
    status = json.loads(autoglm("status", "--json", "--data-dir", data).stdout)
    process.kill()
    process.wait()
    family = [status["server"]["pid"], status["engines"][0]["pid"]]
    wait_until(lambda: gone(family))


def test_a_job_outlasts_a_killed_and_restarted_server(tmp_path: Path) -> None:
    prompts = write_input(tmp_path)
    server = Server(tmp_path / "data", *SLOW)
    server.start()
    process = start(*command(tmp_path))
    for share in (0.2, 0.6):
        wait_until(lambda share=share: answered(tmp_path) > LINES * share)
        server.kill()
        server.start()
    assert process.wait(60) == 0
    server.stop()
    assert_each_answered_once_in_order(tmp_path, prompts)
    assert successes(tmp_path) == len(prompts)


def test_a_job_says_so_when_its_own_server_is_killed_and_can_be_taken_up(tmp_path: Path) -> None:
    prompts = write_input(tmp_path)
    process = start(*command(tmp_path, *SLOW))
    wait_until(lambda: answered(tmp_path) > LINES * 0.3)
    data = str(tmp_path / "data")
    status = json.loads(autoglm("status", "--json", "--data-dir", data).stdout)
    os.kill(status["server"]["pid"], signal.SIGKILL)
    assert process.wait(30) == 3
    assert autoglm(*command(tmp_path, *SLOW)).returncode == 0
    assert_each_answered_once_in_order(tmp_path, prompts)


def test_a_run_outlasts_another_run_whose_server_it_used(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    data = ("--data-dir", str(tmp_path / "data"), *SLOW)
    folders = ((first, write_and_make(first, 300)), (second, write_and_make(second, LINES)))
    runs: list[subprocess.Popen[bytes]] = []
    for folder, _ in folders:
        runs.append(start("run", str(folder / "in.jsonl"), "-o", str(folder / "out.jsonl"), *data))
        wait_until(lambda folder=folder: answered(folder) > 0)
    assert [process.wait(60) for process in runs] == [0, 0]
    for folder, prompts in folders:
        assert_each_answered_once_in_order(folder, prompts)


def test_ctrl_c_ends_it_with_130_and_nothing_is_lost(tmp_path: Path) -> None:
    prompts = write_input(tmp_path)
    process = start(*command(tmp_path, *SLOW))
    wait_until(lambda: answered(tmp_path) > LINES * 0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert autoglm(*command(tmp_path, *SLOW)).returncode == 0
    assert_each_answered_once_in_order(tmp_path, prompts)


def test_as_completed_holds_every_line_once(tmp_path: Path) -> None:
    write_input(tmp_path)
    process = start(*command(tmp_path, *SLOW, "--as-completed"))
    wait_until(lambda: answered(tmp_path) > LINES * 0.3)
    process.kill()
    process.wait()
    assert autoglm(*command(tmp_path, *SLOW, "--as-completed")).returncode == 0
    assert sorted(line_of(result) for result in results(tmp_path)) == list(range(1, LINES + 1))


def test_bad_lines_are_told_and_stop_nothing(tmp_path: Path) -> None:
    lines = [
        '{"prompt": "one"}',
        "",
        "not json",
        '{"prompt": "two", "temprature": 0}',
        '{"prompt": "three", "priority": 12, "custom_id": "mine"}',
        '{"task_id": "four", "model": "glm", "input": "four", "priority": 1}',
        '{"prompt": "five", "max_tokens": 1}',
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    done = autoglm(*command(tmp_path, *INSTANT))
    assert done.returncode == 1
    assert [line_of(result) for result in results(tmp_path)] == [1, 6, 7]
    assert results(tmp_path)[1]["custom_id"] == "four"
    errors = [json.loads(line) for line in (tmp_path / "out.errors.jsonl").read_text().splitlines()]
    assert [(error["line"], error["error"]["code"]) for error in errors] == [
        (3, "not_json"),
        (4, "unknown_field"),
        (5, "invalid_value"),
    ]
    assert errors[2]["custom_id"] == "mine"


def test_another_input_for_the_same_output_needs_fresh(tmp_path: Path) -> None:
    write_input(tmp_path, 20)
    assert autoglm(*command(tmp_path, *INSTANT)).returncode == 0
    prompts = write_input(tmp_path, 30)
    refused = autoglm(*command(tmp_path, *INSTANT))
    assert refused.returncode == 3
    assert "--fresh" in refused.stderr
    assert len(results(tmp_path)) == 20
    assert autoglm(*command(tmp_path, *INSTANT, "--fresh")).returncode == 0
    assert_each_answered_once_in_order(tmp_path, prompts)


def test_in_a_pipe_it_says_at_once_what_it_waits_for(tmp_path: Path) -> None:
    write_input(tmp_path, 5)
    done = autoglm(*command(tmp_path, *INSTANT))
    assert done.stderr.splitlines()[:2] == [
        "autoglm: no server is running: starting one for this run",
        "autoglm: 0 of 5 done so far, waiting for answers",
    ]


def test_a_server_with_another_model_is_refused(tmp_path: Path) -> None:
    write_input(tmp_path, 5)
    with Server(tmp_path / "data", *INSTANT):
        refused = autoglm(*command(tmp_path, "--engine", "vllm", "--model", "tiny"))
    assert refused.returncode == 3
    assert "simulated, not vllm" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_an_unreadable_input_starts_no_server(tmp_path: Path) -> None:
    refused = autoglm(*command(tmp_path, *INSTANT))
    assert refused.returncode == 2
    assert "in.jsonl" in refused.stderr
    assert not (tmp_path / "data").exists()
