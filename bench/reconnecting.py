"""The clients of kill: they hand in tasks and wait for the answers, whatever the server does.

    reconnecting.py SOCKET

Runs until stdin is closed, then waits for what is still out and prints one line of JSON: every
task that was acknowledged, with its prompt and the answer that came, None for none.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread

from autoglm import AutoGLMError, Client
from autoglm.retry import Patience
from runtime.process import die_with

CLIENTS: Final = 8
IN_FLIGHT: Final = 8
PATIENCE: Final = Patience(window_s=60, busy_s=60, cap_s=0.1)
ANSWER_TIMEOUT_S: Final = 60


class Record:
    def __init__(self) -> None:
        self.prompts: dict[str, str] = {}
        self.answers: dict[str, str] = {}
        self.refusals: list[str] = []
        self.over = False


async def ask(client: Client, record: Record, numbers: Iterator[int]) -> None:
    """One task after another."""
    while not record.over:
        prompt = f"question {next(numbers)}"
        try:
            task = await client.submit(prompt, max_tokens=4)
            record.prompts[task.id] = prompt
            with contextlib.suppress(TimeoutError):
                result = await client.result(task.id, timeout=ANSWER_TIMEOUT_S)
                record.answers[task.id] = result.text
        except AutoGLMError as error:
            record.refusals.append(f"{type(error).__name__}: {error}")


async def person(socket: Path, record: Record, numbers: Iterator[int]) -> None:
    async with Client(socket, patience=PATIENCE) as client, anyio.create_task_group() as group:
        for _ in range(IN_FLIGHT):
            group.start_soon(ask, client, record, numbers)


async def run(socket: Path) -> Record:
    record, numbers = Record(), itertools.count()
    async with anyio.create_task_group() as group:
        for _ in range(CLIENTS):
            group.start_soon(person, socket, record, numbers)
        await anyio.to_thread.run_sync(sys.stdin.read)
        record.over = True
    return record


def main() -> None:
    die_with(os.getppid())
    record = anyio.run(run, Path(sys.argv[1]), backend_options={"use_uvloop": True})
    tasks = {id: (prompt, record.answers.get(id)) for id, prompt in record.prompts.items()}
    print(json.dumps({"tasks": tasks, "refusals": record.refusals}))


if __name__ == "__main__":
    main()
