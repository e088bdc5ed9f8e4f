"""The real engine under the real command, with the tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm import Client
from tests.system.real import Server, environment, gone

pytest.importorskip("vllm")
pytestmark = [pytest.mark.system, pytest.mark.vllm]

PROMPTS = [f"Prompt number {number}: {'word ' * (number % 7)}" for number in range(32)]
TOKENS = 24
ENGINE = ("--engine", "vllm", "--model", "tiny", "--set", "engine.dtype=float32")


def direct_answers() -> list[str]:
    """What vLLM itself says to the same prompts."""
    direct = subprocess.run(
        [sys.executable, "-m", "tests.system.direct_vllm"],
        input=json.dumps([PROMPTS, TOKENS]),
        capture_output=True,
        text=True,
        timeout=180,
        env=environment(VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1"),
        check=False,
    )
    assert direct.returncode == 0, direct.stderr
    return json.loads(direct.stdout.splitlines()[-1])


async def test_32_prompts_at_once_get_the_tokens_of_a_direct_run(tmp_path: Path) -> None:
    expected = direct_answers()
    with Server(tmp_path / "data", *ENGINE) as server:
        async with Client(server.socket) as client:
            mapped = client.map(PROMPTS, max_tokens=TOKENS, temperature=0.0)
            results = [result async for result in mapped]
            status = await client.status()
    assert [result.text for result in results] == expected
    assert all(result.usage.completion_tokens == TOKENS for result in results)
    assert status.batches.count <= 2
    assert status.engines[0].choices


async def test_a_killed_engine_process_comes_back_and_loses_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, *ENGINE) as server:
        async with Client(server.socket) as client:
            tasks = [await client.submit(prompt, max_tokens=1500) for prompt in PROMPTS[:8]]
            async for chunk in client.stream("running", max_tokens=64):
                assert chunk
                break
            status = await client.status()
            host = status.engines[0].pid
            assert host is not None
            family = _descendants(host)
            assert family, "the engine core is a process of its own"
            os.kill(host, signal.SIGKILL)
            results = [await client.result(task.id, timeout=240) for task in tasks]
    assert all(result.usage.completion_tokens > 0 for result in results)
    assert gone([host, *family])


def _descendants(pid: int) -> list[int]:
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
    return children + [each for child in children for each in _descendants(child)]
