"""Prompts that kill or hang the engine, with the real command and real engine processes."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import anyio
import pytest

from actors.policy.poison import deaths_max
from autoglm.client import Client
from autoglm.retry import Patience
from autoglm.types import Answer, TaskState
from tests.system.real import Server, fingerprint

pytestmark = [pytest.mark.system, pytest.mark.anyio]

TASKS, SLOTS = 1000, 256
SOON_S = 150.0
OPTIONS = (
    *("--engine", "simulated"),
    *("--set", "engine.simulated.load_s=0.01"),
    *("--set", "engine.simulated.step_ms=1"),
    *("--set", "engine.faults=true"),
    *("--set", f"engine.max_num_seqs={SLOTS}"),
    *("--set", "engine.watchdog_s=1"),
)


@pytest.mark.parametrize(("mark", "poisons"), [("crash", 1), ("crash", 3), ("hang", 1)])
async def test_poison_among_a_thousand_tasks_is_found_within_twelve_restarts_each(
    mark: str, poisons: int, tmp_path: Path
) -> None:
    bad = set(random.Random(poisons).sample(range(TASKS), poisons))
    prompts = [f"prompt {number}{f' [[{mark}]]' * (number in bad)}" for number in range(TASKS)]
    with Server(tmp_path, *OPTIONS) as server, anyio.fail_after(SOON_S):
        async with Client(server.socket) as client:
            answers = await _answers(client, await _submit(client, prompts))
    assert 2 < _deaths(server) <= deaths_max(SLOTS) * poisons <= 12 * poisons
    _check(prompts, answers)


async def test_a_server_killed_in_the_middle_of_an_isolation_goes_on_where_it_was(
    tmp_path: Path,
) -> None:
    prompts = [f"prompt {number}" for number in range(TASKS)]
    prompts[300] += " [[crash]]"
    patience = Patience(window_s=SOON_S)
    with Server(tmp_path, *OPTIONS) as server, anyio.fail_after(SOON_S):
        async with Client(server.socket, patience=patience) as client:
            ids = await _submit(client, prompts)
            while _most_suspect(server) < 5:
                pass
            server.kill()
            before = _deaths(server)
            server.start()
            answers = await _answers(client, ids)
    # What was not recorded when the server was killed is not remembered: one death at the most.
    assert before + _deaths(server) <= deaths_max(SLOTS) + 1
    _check(prompts, answers)


async def _submit(client: Client, prompts: list[str]) -> list[str]:
    ids: list[str] = [""] * len(prompts)

    async def one(number: int) -> None:
        ids[number] = (await client.submit(prompts[number])).id

    async with anyio.create_task_group() as group:
        for number in range(len(prompts)):
            group.start_soon(one, number)
    return ids


async def _answers(client: Client, ids: list[str]) -> list[Answer]:
    return [await client.answer(id, wait=True) for id in ids]


def _deaths(server: Server) -> int:
    """Engine deaths that a server which has ended wrote of."""
    return server.said.count("engine-1 failed:")


def _most_suspect(server: Server) -> int:
    """The most deaths that any task was present at, as the store has it."""
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        (deaths,) = cx.execute("SELECT max(deaths) FROM task").fetchone()
    return deaths


def _check(prompts: list[str], answers: list[Answer]) -> None:
    for prompt, answer in zip(prompts, answers, strict=True):
        task = answer.task
        if "[[" not in prompt:
            assert (task.state, task.failures) == (TaskState.SUCCEEDED, 0)
            assert answer.result is not None
            assert answer.result.text.startswith(fingerprint(prompt))
            continue
        assert (task.state, task.failures) == (TaskState.DEAD, 1)
        assert task.error is not None
        assert task.error.code == "poison"
        assert "deaths" in task.error.message
        assert ("hung" if "hang" in prompt else "host process ended") in task.error.message
