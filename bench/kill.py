"""`kill -9` of the server, again and again, while clients hand in work and wait for answers.

    acknowledged   tasks of which a client was told that they are durable
    lost           of those, the ones that are gone or were never answered
    duplicated     more than one transition to `succeeded`, or another answer on a later look
    wrong          not the answer to this prompt
    run again      attempts beyond a task's first: execution is at least once
    restart        from the start of the process until it has taken a submission

What happened is told by the client and the event log alone. The engine is the simulated one, a few
milliseconds a task, so that a kill finds work in every state.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import anyio

from autoglm import Client, NotFound, wire
from autoglm.ids import Ids
from autoglm.spec import task_spec
from autoglm.types import TaskSpec, TaskState
from bench import report
from bench.report import Figure, percentile, progress
from bench.served import simulated
from tests.system.real import Server

ENGINE: Final = ("load_s=0", "step_ms=2", "prefill_tok_s=0", "output_tokens=4")
ALIVE_S: Final = (0.02, 0.6)
"""How long a server lives after it took its first submission: between these."""
ANSWER_TIMEOUT_S: Final = 60
PROBE_TIMEOUT_S: Final = 60
RETRY_S: Final = 0.002
TOGETHER: Final = 64
DIGEST_CHARACTERS: Final = 16
Tasks = dict[str, tuple[str, str | None]]
"""By id: the prompt, and the answer that a client had."""


def submit_one(path: Path, ids: Ids) -> tuple[str, str]:
    """Id and prompt of a task that the server has taken; asks until it does."""
    id = ids.mint()
    spec = task_spec(f"probe {id}", id=id, now_ms=ids.now_ms(), max_tokens=4)
    while not taken(path, spec):
        time.sleep(RETRY_S)
    return id, f"probe {id}"


def taken(path: Path, spec: TaskSpec) -> bool:
    """Whether the server has made the task durable, asked once on a connection of its own."""
    splitter = wire.FrameSplitter()
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(PROBE_TIMEOUT_S)
        stream.connect(str(path))
        stream.sendall(wire.encode_frame(wire.Hello(1)))
        stream.sendall(wire.encode_frame(wire.Submit(2, (spec,))))
        while data := stream.recv(65536):
            for reply in map(wire.decode_reply, splitter.feed(data)):
                if isinstance(reply, wire.Submitted):
                    return reply.tasks[0].error is None
                if isinstance(reply, wire.Error):
                    return False
    return False


def run(kills: int, folder: Path) -> tuple[list[float], dict[str, Any]]:
    """Milliseconds of each restart, and what became of the tasks."""
    server = Server(folder, *simulated(ENGINE))
    ids, rng = Ids(), random.Random(0)
    probes: Tasks = {}
    restarts: list[float] = []
    server.start()
    clients = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.reconnecting", str(server.socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    for number in range(kills):
        time.sleep(rng.uniform(*ALIVE_S))
        server.kill()
        began = time.perf_counter()
        server.start()
        id, prompt = submit_one(server.socket, ids)
        restarts.append((time.perf_counter() - began) * 1000)
        probes[id] = (prompt, None)
        if (number + 1) % 10 == 0:
            progress(f"{number + 1} of {kills} kills, last restart {restarts[-1]:.0f} ms")
    answer, _ = clients.communicate()
    told = json.loads(answer)
    tasks = {id: (prompt, text) for id, (prompt, text) in told["tasks"].items()} | probes
    progress(f"looking at {len(tasks)} acknowledged tasks")
    found = anyio.run(verify, server.socket, tasks)
    server.stop()
    return restarts, {"acknowledged": len(tasks), "refusals": told["refusals"], **found}


async def verify(path: Path, tasks: Tasks) -> dict[str, Any]:
    """What a client and the event log say of the tasks."""
    lost: list[str] = []
    wrong: list[str] = []
    changed: list[str] = []
    async with Client(path, tenant=None) as client:

        async def look(id: str) -> None:
            prompt, before = tasks[id]
            try:
                with anyio.fail_after(ANSWER_TIMEOUT_S):
                    answer = await client.answer(id, wait=True)
            except (NotFound, TimeoutError):
                lost.append(id)
                return
            text = answer.result.text if answer.result else ""
            digest = hashlib.sha256(prompt.encode()).hexdigest()[:DIGEST_CHARACTERS]
            if answer.task.state is not TaskState.SUCCEEDED:
                lost.append(id)
            elif not text.startswith(digest):
                wrong.append(id)
            elif before not in (None, text):
                changed.append(id)

        left = iter(tasks)

        async def look_at_the_rest() -> None:
            for id in left:
                await look(id)

        async with anyio.create_task_group() as group:
            for _ in range(TOGETHER):
                group.start_soon(look_at_the_rest)
        runs: Counter[str] = Counter()
        successes: Counter[str] = Counter()
        async for event in client.events():
            runs[event.task] += event.to_state is TaskState.RUNNING
            successes[event.task] += event.to_state is TaskState.SUCCEEDED
    twice = [id for id, count in successes.items() if count > 1]
    again = sum(max(0, count - 1) for count in runs.values())
    unlogged = [id for id in tasks if not successes[id] and id not in lost]
    return {
        "lost": lost + unlogged,
        "duplicated": sorted({*twice, *changed}),
        "wrong": wrong,
        "run_again": again,
        "stored": len(runs),
    }


def figures(restarts_ms: list[float], found: dict[str, Any]) -> list[Figure]:
    def count(name: str, floor: float | None = None) -> Figure:
        value = found[name]
        number = value if isinstance(value, int) else len(value)
        return Figure(name.replace("_", " "), "tasks", [number], floor, less=True)

    return [
        count("acknowledged"),
        count("lost", 0),
        count("duplicated", 0),
        count("wrong", 0),
        count("run_again"),
        count("refusals"),
        Figure("restart, median", "ms", [percentile(restarts_ms, 50)], less=True),
        Figure("restart, p99", "ms", [percentile(restarts_ms, 99)], aim=1000, less=True),
    ]


def main() -> int:
    parser = report.options("kill", __doc__, disk=True)
    parser.add_argument("--kills", type=int, default=50)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.kills = 5
    state = report.conditions(arguments, ("aiosqlite",))
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as folder:
        restarts_ms, found = run(arguments.kills, Path(folder))
    details = {"restarts_ms": restarts_ms, "found": found}
    return report.finish(arguments.output, state, figures(restarts_ms, found), details)


if __name__ == "__main__":
    sys.exit(main())
