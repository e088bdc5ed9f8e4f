"""The server as a process: how it starts, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from autoglm import Client
from tests.system.real import AUTOGLM, INSTANT, Server, autoglm, environment, gone

pytestmark = pytest.mark.system


def one_line(text: str) -> str:
    """The one line that an error is."""
    assert text.startswith("autoglm: ")
    assert text.count("\n") == 1
    assert "Traceback" not in text
    return text


def test_a_prompt_is_answered_and_the_answer_stays_after_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        asked = server.ask("submit", "hello", "--wait", "--json")
        answer = json.loads(asked.stdout)
        assert answer["state"] == "succeeded"
        assert answer["result"]["text"].startswith("2cf24dba5fb0a30e")
    with Server(tmp_path, *INSTANT) as server:
        again = json.loads(server.ask("get", answer["id"], "--json").stdout)
    assert again["result"] == answer["result"]


def test_accepts_and_persists_while_the_engine_still_loads(tmp_path: Path) -> None:
    with Server(tmp_path, "--engine", "simulated", "--set", "engine.simulated.load_s=60") as server:
        task = json.loads(server.ask("submit", "hello", "--json").stdout)
        status = json.loads(server.ask("status", "--json").stdout)
        assert status["engines"][0]["state"] == "loading"
        server.kill()
    with Server(tmp_path, *INSTANT) as server:
        assert server.ask("get", task["id"], "--wait").stdout.startswith("2cf24dba5fb0a30e")


async def test_prompts_submitted_together_reach_the_engine_in_two_batches(tmp_path: Path) -> None:
    options = ("--set", "engine.max_num_seqs=128", "--set", "engine.simulated.step_ms=20")
    with Server(tmp_path, "--engine", "simulated", *options) as server:
        async with Client(server.socket) as client:
            await client.result((await client.submit("the engine is loaded")).id)
            before = await client.status()
            results = [
                result async for result in client.map(f"prompt {number}" for number in range(100))
            ]
            after = await client.status()
    assert len(results) == 100
    assert after.batches.count - before.batches.count <= 2


async def test_a_lone_prompt_does_not_wait_for_the_window(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT, "--set", "batch.window_ms=60000") as server:
        async with Client(server.socket) as client:
            task = await client.submit("alone")
            await client.result(task.id, timeout=30)
            status = await client.status()
    assert status.batches.triggers["idle"] == 1
    assert status.batches.triggers["window"] == 0


def test_a_second_server_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        second = autoglm("serve", *INSTANT, "--data-dir", str(tmp_path))
        assert second.returncode == 2
        assert f"process {server.pid}" in one_line(second.stderr)


def test_a_second_server_at_the_same_socket_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path / "one", *INSTANT) as server:
        other = ("--data-dir", str(tmp_path / "two"), "--socket", str(server.socket))
        second = autoglm("serve", *INSTANT, *other)
        assert second.returncode == 2
        assert "already listens" in one_line(second.stderr)


def test_the_socket_of_a_killed_server_is_taken_over(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        server.kill()
    assert server.socket.is_socket()
    with Server(tmp_path, *INSTANT) as server:
        assert server.ask("status").returncode == 0


def test_folder_files_and_socket_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with Server(folder, *INSTANT) as server:
        server.ask("submit", "hello", "--wait")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_sigterm_lets_running_work_finish(tmp_path: Path) -> None:
    with Server(
        tmp_path, "--engine", "simulated", "--set", "engine.simulated.step_ms=20"
    ) as server:
        task = json.loads(server.ask("submit", "[[tokens:50]]", "--json").stdout)
        while '"running": 1' not in json.dumps(json.loads(server.ask("status", "--json").stdout)):
            pass
        assert server.stop() == 0
    with Server(tmp_path, *INSTANT) as server:
        answer = json.loads(server.ask("get", task["id"], "--json").stdout)
    assert answer["state"] == "succeeded"
    assert answer["task"]["attempt"] == 1


def test_a_second_sigterm_ends_it_at_once_and_puts_running_work_back(tmp_path: Path) -> None:
    with Server(
        tmp_path, "--engine", "simulated", "--set", "engine.simulated.step_ms=500"
    ) as server:
        task = json.loads(server.ask("submit", "[[tokens:1000]]", "--json").stdout)
        while json.loads(server.ask("status", "--json").stdout)["tasks"]["running"] != 1:
            pass
        os.kill(server.pid, signal.SIGTERM)
        while json.loads(server.ask("status", "--json").stdout)["server"]["state"] != "draining":
            pass
        assert server.stop() == 0
    with Server(tmp_path, *INSTANT) as server:
        assert server.ask("get", task["id"], "--wait").returncode == 0
        answer = json.loads(server.ask("get", task["id"], "--json").stdout)
    assert (answer["task"]["attempt"], answer["task"]["failures"]) == (2, 0)


def test_the_engine_dies_with_a_killed_server(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        server.ask("submit", "the engine is loaded", "--wait")
        status = json.loads(server.ask("status", "--json").stdout)
        server.kill()
    host = status["engines"][0]["pid"]
    while not gone([host]):
        pass


def test_a_killed_engine_comes_back_and_its_task_is_answered_uncharged(tmp_path: Path) -> None:
    with Server(
        tmp_path, "--engine", "simulated", "--set", "engine.simulated.step_ms=20"
    ) as server:
        task = json.loads(server.ask("submit", "[[tokens:40]]", "--json").stdout)
        while (status := json.loads(server.ask("status", "--json").stdout))["tasks"][
            "running"
        ] != 1:
            pass
        os.kill(status["engines"][0]["pid"], signal.SIGKILL)
        assert server.ask("get", task["id"], "--wait").returncode == 0
        answer = json.loads(server.ask("get", task["id"], "--json").stdout)
    assert answer["task"]["attempt"] == 2
    assert answer["task"]["failures"] == 0


def test_a_poison_prompt_is_dead_lettered_and_the_others_are_answered(tmp_path: Path) -> None:
    options = ("--set", "engine.faults=true", "--set", "engine.simulated.step_ms=1")
    with Server(tmp_path, "--engine", "simulated", *options) as server:
        poison = json.loads(server.ask("submit", "[[crash]]", "--json").stdout)["id"]
        others = [
            json.loads(server.ask("submit", f"innocent {n}", "--json").stdout)["id"]
            for n in range(5)
        ]
        refused = server.ask("get", poison, "--wait")
        assert refused.returncode == 1
        assert "poison" in one_line(refused.stderr)
        assert [server.ask("get", id, "--wait").returncode for id in others] == [0] * 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--set", "batch.windw_ms=5"], "did you mean batch.window_ms"),
        (["serve", "--set", "engine.max_num_seqs=none"], "engine.max_num_seqs"),
        (["serve", "--config", "missing.yaml"], "missing.yaml"),
        (["serve", "--model", "no/such/folder"], "no/such/folder"),
        (["submit", "hello", "--priority", "12"], "12"),
        (["serve", "--engine", "simulated", "--socket", "/tmp/" + "x" * 110], "--socket"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: list[str], words: str, tmp_path: Path
) -> None:
    refused = autoglm(*arguments, "--data-dir", str(tmp_path), cwd=tmp_path)
    assert refused.returncode == 2
    assert words in one_line(refused.stderr)


def test_a_prompt_too_long_for_the_model_ends_with_the_reason(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT, "--set", "engine.max_model_len=8") as server:
        refused = server.ask("submit", "word " * 50, "--wait")
    assert refused.returncode == 1
    assert "prompt_too_long" in refused.stderr.splitlines()[-1]


def test_a_data_folder_that_can_t_be_made_is_refused() -> None:
    refused = autoglm("serve", *INSTANT, "--data-dir", "/proc/autoglm")
    assert refused.returncode == 2
    assert "--data-dir" in one_line(refused.stderr)


def test_a_model_that_vllm_can_t_run_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    pytest.importorskip("vllm")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    model = ("--model", str(tmp_path / "model"))
    ended = autoglm("serve", *model, "--data-dir", str(tmp_path / "data"), timeout=90)
    assert ended.returncode == 1
    assert "vLLM can't run" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_server_at_the_socket_is_one_line_and_exit_3(tmp_path: Path) -> None:
    refused = autoglm("status", "--data-dir", str(tmp_path))
    assert refused.returncode == 3
    assert "autoglm serve" in one_line(refused.stderr)


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = autoglm("serve", *INSTANT, "--data-dir", str(tmp_path / "file"))
    assert refused.returncode == 2
    assert "--data-dir" in one_line(refused.stderr)


def test_a_foreign_file_in_the_store_s_place_is_refused_and_kept(tmp_path: Path) -> None:
    store = tmp_path / "queue.sqlite3"
    store.write_bytes(b"somebody's diary " * 1000)
    refused = autoglm("serve", *INSTANT, "--data-dir", str(tmp_path))
    assert refused.returncode == 2
    assert "queue.sqlite3" in one_line(refused.stderr)
    assert store.read_bytes() == b"somebody's diary " * 1000


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make another user's folder")
def test_another_user_s_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    refused = autoglm("serve", *INSTANT, "--data-dir", str(folder))
    assert refused.returncode == 2
    assert "another user" in one_line(refused.stderr)


def test_runs_from_a_folder_that_has_a_model_package_of_its_own(tmp_path: Path) -> None:
    for name in ("model", "runtime", "actors", "autoglm"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('the wrong package')")
    where = tmp_path / "data"
    run = autoglm(
        *("run", "-o", "out.jsonl", "in.jsonl", *INSTANT, "--data-dir", str(where)), cwd=tmp_path
    )
    assert "the wrong package" not in run.stderr


def test_a_command_whose_output_is_closed_does_its_work(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        command = [*AUTOGLM, "submit", "hello", "--socket", str(server.socket)]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command], check=False, env=environment()
        )
        assert done.returncode == 0
        assert json.loads(server.ask("status", "--json").stdout)["tasks"]
