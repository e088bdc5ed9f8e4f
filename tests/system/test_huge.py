"""Prompts and answers beyond all measure fail by themselves, and nobody else notices."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from autoglm import Client
from autoglm.errors import AutoGLMError, TaskDead
from autoglm.wire import FRAME_BYTES_MAX
from model.host import ANSWER_BYTES_MAX
from tests.system.real import IMPATIENT, INSTANT, Server, fingerprint

pytestmark = pytest.mark.system

OPTIONS = (*INSTANT, "--set", "engine.max_model_len=100000000")
HUGE = "[[tokens:30000000]]"
"""More than 100 MB of answer."""
LARGE = "[[tokens:4000000]]"
"""About as much as an answer may have: 15 MB."""
WAIT_S = 60


async def test_an_answer_of_a_hundred_megabytes_fails_alone_and_is_not_tried_again(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *OPTIONS) as server:
        async with Client(server.socket) as client:
            small = [await client.submit(f"before {number}") for number in range(20)]
            huge = await client.submit(HUGE)
            small += [await client.submit(f"after {number}") for number in range(20)]
            with pytest.raises(TaskDead, match="over the limit") as failed:
                await client.result(huge.id, timeout=WAIT_S)
            assert failed.value.task is not None
            assert failed.value.task.error is not None
            assert failed.value.task.error.code == "answer_too_long"
            assert failed.value.task.attempt == 1
            for task in small:
                assert (await client.result(task.id, timeout=WAIT_S)).task.attempt == 1
            status = await client.status()
    assert not any(actor.restarts for actor in status.actors)


async def test_several_large_answers_at_once_reach_everybody_who_waits(tmp_path: Path) -> None:
    with Server(tmp_path, *OPTIONS) as server:
        async with Client(server.socket) as client:
            prompts = [f"{number} {LARGE}" for number in range(8)]
            async with anyio.create_task_group() as group:
                for prompt in prompts:
                    group.start_soon(_answered, client, prompt)
            status = await client.status()
    assert not any(actor.restarts for actor in status.actors)


async def _answered(client: Client, prompt: str) -> None:
    task = await client.submit(prompt)
    result = await client.result(task.id, timeout=WAIT_S)
    assert result.text.startswith(fingerprint(prompt))
    assert ANSWER_BYTES_MAX > len(result.text) > ANSWER_BYTES_MAX // 2
    assert result.task.attempt == 1


async def test_a_prompt_too_large_for_a_frame_is_refused_and_one_that_fits_is_answered(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *OPTIONS) as server:
        async with Client(server.socket, patience=IMPATIENT) as client:
            with pytest.raises(AutoGLMError, match="takes up to") as refused:
                await client.submit("x" * (FRAME_BYTES_MAX + 1))
            assert "\n" not in str(refused.value)
            fits = "x" * (FRAME_BYTES_MAX - 10_000)
            result = await client.result((await client.submit(fits)).id, timeout=WAIT_S)
            assert result.text.startswith(fingerprint(fits))
            assert result.task.attempt == 1
