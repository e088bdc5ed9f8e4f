"""The task queues for Python that autoglm is measured against, each in a process of its own.

    peers.py huey FOLDER TASKS IN_FLIGHT
    peers.py saq FOLDER TASKS IN_FLIGHT

Each takes tasks as durably as autoglm does, one fsync before anything counts as done: Huey on
SQLite with `synchronous=FULL`, SAQ on Redis with `appendfsync always`. A task is through when its
result has been stored and whoever handed it in has it. The work is to return the prompt's first
characters. Prints one line of JSON. Ends with 3 when the peer is not installed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import shutil
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any, Final

from bench.load import prompt

NOT_INSTALLED: Final = 3
HUEY_WORKERS: Final = 1
"""Threads share one connection and one lock: 1, 2 and 8 came to the same, 1 a little ahead."""
SAQ_CONCURRENCY: Final = 64
"""Of 16, 64 and 256 the fastest."""
SAQ_SWEEP_S: Final = 0.5
"""Its sweep at the start would end tasks that are just being claimed."""
RESULT_CHARACTERS: Final = 16


def huey(folder: Path, tasks: int, in_flight: int) -> float:
    """Seconds for all tasks, on Huey."""
    package: Any = importlib.import_module("huey")
    queue: Any = package.SqliteHuey(
        filename=str(folder / "huey.sqlite3"), fsync=True, journal_mode="wal"
    )

    def answer(text: str) -> str:
        return text[:RESULT_CHARACTERS]

    task: Any = queue.task()(answer)
    consumer: Any = queue.create_consumer(
        workers=HUEY_WORKERS, periodic=False, initial_delay=0.001, backoff=1, max_delay=0.001
    )
    consumer.start()
    began = time.perf_counter()
    waiting: deque[Any] = deque()
    for number in range(tasks):
        if len(waiting) == in_flight:
            waiting.popleft().get(blocking=True, backoff=1, max_delay=0.001, preserve=True)
        waiting.append(task(prompt(number)))
    for result in waiting:
        result.get(blocking=True, backoff=1, max_delay=0.001, preserve=True)
    seconds = time.perf_counter() - began
    consumer.stop(graceful=True)
    return seconds


def saq(folder: Path, tasks: int, in_flight: int) -> float:
    """Seconds for all tasks, on SAQ with a Redis of its own."""
    server = shutil.which("redis-server")
    if server is None:
        raise ModuleNotFoundError("redis-server is not installed")
    importlib.import_module("saq")
    logging.getLogger("saq").setLevel(logging.ERROR)  # a worker that stops says it was waiting
    socket = folder / "redis.sock"
    redis = subprocess.Popen(
        [
            *(server, "--port", "0", "--unixsocket", str(socket), "--dir", str(folder)),
            *("--save", "", "--appendonly", "yes", "--appendfsync", "always"),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        while not socket.exists():
            assert redis.poll() is None, "redis-server ended"
            time.sleep(0.01)
        uvloop: Any = importlib.import_module("uvloop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_saq(f"unix://{socket}", tasks, in_flight))
    finally:
        redis.terminate()
        redis.wait()


async def _saq(url: str, tasks: int, in_flight: int) -> float:
    queue_module: Any = importlib.import_module("saq.queue.redis")
    worker_module: Any = importlib.import_module("saq.worker")
    queue: Any = queue_module.RedisQueue.from_url(url, max_concurrent_ops=in_flight)
    await queue.connect()

    async def answer(_context: object, *, text: str) -> str:
        return text[:RESULT_CHARACTERS]

    worker: Any = worker_module.Worker(
        queue, functions=[("answer", answer)], concurrency=SAQ_CONCURRENCY, timers={"sweep": 3600}
    )
    numbers = iter(range(tasks))

    async def ask() -> None:
        for number in numbers:
            text = prompt(number)
            job = await queue.enqueue("answer", text=text)
            await job.refresh(0)
            assert job.result == text[:RESULT_CHARACTERS]

    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.start())
        await asyncio.sleep(SAQ_SWEEP_S)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as askers:
            for _ in range(in_flight):
                askers.create_task(ask())
        seconds = time.perf_counter() - began
        await worker.stop()
        running.cancel()
    await queue.disconnect()
    return seconds


PEERS: Final = {"huey": huey, "saq": saq}


def main() -> int:
    name, folder, tasks, in_flight = sys.argv[1:]
    try:
        seconds = PEERS[name](Path(folder), int(tasks), int(in_flight))
    except ModuleNotFoundError as error:
        print(f"{name} goes unmeasured: {error}", file=sys.stderr)
        return NOT_INSTALLED
    print(json.dumps({"seconds": seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
