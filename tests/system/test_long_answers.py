"""Long answers outlive the death of whoever makes them, as real processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
from pathlib import Path

import anyio
import pytest

from autoglm import Client, Task
from tests.system.real import Server, fingerprint

pytestmark = pytest.mark.system

TOKENS = 200
KEPT = (
    *("--engine", "simulated", "--set", "engine.simulated.load_s=0"),
    *("--set", "engine.simulated.step_ms=20", "--set", "engine.checkpoint_tokens=8"),
)
PATIENCE_S = 60
PROMPT = f"go on [[tokens:{TOKENS}]]"


def undisturbed() -> str:
    filler = ("and", "so", "it", "goes", "on", "word", "by", "word")
    words = [filler[token % len(filler)] for token in range(1, TOKENS)]
    return " ".join([fingerprint(PROMPT), *words])


def kept(server: Server, task: Task) -> int:
    """Tokens of its answer that are in the store."""
    query = (
        "SELECT json_array_length(body, '$.tokens') FROM checkpoint c JOIN task t ON t.seq = c.task"
        " WHERE t.id = ?"
    )
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        row = cx.execute(query, (task.id,)).fetchone()
    return row[0] if row else 0


async def until_kept(server: Server, task: Task, tokens: int) -> None:
    with anyio.fail_after(PATIENCE_S):
        while kept(server, task) < tokens:  # noqa: ASYNC110 - it is another process that writes
            await anyio.sleep(0.01)


def spent(server: Server, task: Task) -> int:
    """Tokens that its last attempt took."""
    query = "SELECT e.cost FROM event e JOIN task t ON t.last_event = e.seq WHERE t.id = ?"
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        return cx.execute(query, (task.id,)).fetchone()[0]


def states_of(server: Server, task: Task) -> list[str]:
    """Those it has been in, in order."""
    query = (
        "SELECT e.to_state FROM event e JOIN task t ON t.seq = e.task WHERE t.id = ? ORDER BY e.seq"
    )
    with contextlib.closing(sqlite3.connect(f"file:{server.store}?mode=ro", uri=True)) as cx:
        return [state for (state,) in cx.execute(query, (task.id,))]


async def the_whole(server: Server, task: Task) -> None:
    """It is what it would have been, its usage too, and less than half of it was made again."""
    async with Client(server.socket) as client:
        result = await client.result(task.id)
    assert result.text == undisturbed()
    assert (result.usage.prompt_tokens, result.usage.completion_tokens) == (3, TOKENS)
    assert spent(server, task) <= TOKENS - 40
    assert kept(server, task) == 0


@pytest.mark.parametrize("twice", [False, True])
async def test_an_answer_goes_on_after_the_death_of_its_engine(tmp_path: Path, twice: bool) -> None:
    with Server(tmp_path, *KEPT) as server:
        async with Client(server.socket) as client:
            task = await client.submit(PROMPT)
            for tokens in (40, 80)[: 1 + twice]:
                await until_kept(server, task, tokens)
                with anyio.fail_after(PATIENCE_S):
                    while (pid := (await client.status()).engines[0].pid) is None:
                        pass
                os.kill(pid, signal.SIGKILL)
        await the_whole(server, task)


async def test_an_answer_goes_on_after_the_death_of_the_server(tmp_path: Path) -> None:
    server = Server(tmp_path, *KEPT)
    server.start()
    async with Client(server.socket) as client:
        task = await client.submit(PROMPT)
    await until_kept(server, task, 40)
    server.kill()
    with server:
        await the_whole(server, task)


async def test_a_server_that_is_stopped_hands_over_what_it_has(tmp_path: Path) -> None:
    server = Server(tmp_path, *KEPT, "--drain-timeout", "0")
    server.start()
    async with Client(server.socket) as client:
        task = await client.submit(PROMPT)
    await until_kept(server, task, 40)
    server.stop()
    assert kept(server, task) >= 40
    with server:
        await the_whole(server, task)


async def test_an_urgent_task_is_answered_though_long_ones_fill_the_engine(tmp_path: Path) -> None:
    """One of them is put back for it, uncharged, and runs on afterwards."""
    slow = ("--set", "engine.simulated.step_ms=20", "--set", "engine.max_num_seqs=2")
    with Server(tmp_path, *("--engine", "simulated"), *slow) as server:
        async with Client(server.socket) as client:
            long = [await client.submit(f"{n} [[tokens:8000]]") for n in (1, 2)]
            with anyio.fail_after(PATIENCE_S):
                while (await client.status()).tasks.get("running", 0) < len(long):
                    pass
                urgent = await client.result((await client.submit("now", priority=0)).id)
                states = [states_of(server, task) for task in long]
                assert sorted(each[:3] for each in states) == [
                    ["pending", "running"],
                    ["pending", "running", "pending"],
                ]
            assert urgent.text.startswith(fingerprint("now"))
            assert [(await client.get(task.id)).failures for task in long] == [0, 0]
            for task in long:
                await client.cancel(task.id)
