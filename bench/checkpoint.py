"""What checkpoints save when an engine dies in the middle of a long answer, and what they cost.

same text     of greedy answers of 512 tokens whose engine was killed once, at random, those that
              are the undisturbed ones
made again    tokens that had been made when it was killed and were made once more, of all; what
              had been made is told by the text that a reader of the stream had got
throughput    tokens per second of many long answers at once, with checkpoints every so many
              tokens over without; the servers take turns
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from autoglm import Client
from autoglm.status import EngineStatus
from autoglm.types import Sampling
from bench import report
from bench.engine_deaths import NEVER_HELD
from bench.report import Figure, percentile, progress, ratio
from bench.served import simulated
from tests.system.real import Server

TOKENS: Final = 512
GREEDY: Final = Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
EVERY: Final = (None, 256, 64, 16)
SIMULATED: Final = ("load_s=0.2", "step_ms=5", "prefill_tok_s=10000")
REAL: Final = ("--engine", "vllm", "--set", "engine.kv_cache_gib=0.5")
BACK_S: Final = 180
TRIES: Final = 3
"""How many kills may come too late for each that does not."""
AGAIN_MAX: Final = 0.05
COST_MAX: Final = 0.99


class Killed(NamedTuple):
    """One answer whose engine was killed. Tokens."""

    same: bool
    made: float
    kept: int


def options(arguments: Any, every: int | None, *more: str) -> tuple[str, ...]:
    kept = () if every is None else (f"engine.checkpoint_tokens={every}",)
    sets = (f"engine.max_num_seqs={arguments.at_once}", *NEVER_HELD, *kept, *more)
    if not arguments.vllm:
        return simulated(SIMULATED, *sets)
    words = tuple(word for each in sets for word in ("--set", each))
    return (*REAL, "--model", arguments.model, *words, "--parent", str(os.getpid()))


async def engine_of(client: Client) -> EngineStatus:
    """The engine, when it works."""
    with anyio.fail_after(BACK_S):
        while (engine := (await client.status()).engines[0]).pid is None:
            pass
    return engine


async def kills(server: Server, count: int) -> list[Killed]:
    rng, found = random.Random(0), list[Killed]()
    async with Client(server.socket) as client:
        for number in range(TRIES * count):
            if len(found) == count:
                break
            asked = f"a long story of {number} travellers"
            whole = (
                await client.result((await client.submit(asked, sampling=GREEDY)).id, BACK_S)
            ).text
            task = await client.submit(asked, stream=True, sampling=GREEDY)
            at, seen, cut = rng.uniform(0.05, 0.95) * len(whole), 0, 0
            async for chunk in client.follow(task.id):
                seen = len(chunk) if chunk.reset else seen + len(chunk)
                if seen >= at and not cut:
                    cut, pid = seen, (await engine_of(client)).pid
                    assert pid is not None, "an engine that answers has a process"
                    os.kill(pid, signal.SIGKILL)
            result = await client.result(task.id, BACK_S)
            if result.task.attempt == 1:
                continue  # it was complete before the engine was dead
            kept = kept_of(server.store, task.id, result.usage.prompt_tokens)
            found.append(Killed(result.text == whole, cut / len(whole) * TOKENS, kept))
            progress(f"{len(found)} of {count} kills: {found[-1]}")
    return found


def kept_of(store: Path, id: str, prompt_tokens: int) -> int:
    """Tokens that the attempts which were cut short left behind."""
    query = (
        "SELECT sum(cost) FROM event e JOIN task t ON t.seq = e.task"
        " WHERE t.id = ? AND e.to_state = 'pending'"
    )
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as cx:
        (cost,) = cx.execute(query, (id,)).fetchone()
    return max(0, cost - prompt_tokens)


async def tokens_per_s(server: Server, answers: int, turn: int) -> float:
    async with Client(server.socket) as client:
        prompts = [f"{turn} {number}" for number in range(answers)]
        began, tokens = time.perf_counter(), 0
        async for result in client.map(prompts, ordered=False, sampling=GREEDY):
            tokens += result.usage.completion_tokens
        return tokens / (time.perf_counter() - began)


def cost(folder: Path, arguments: Any) -> list[Figure]:
    """Throughput by how often answers are kept; the servers run side by side and take turns."""
    with contextlib.ExitStack() as stack:
        servers: dict[int | None, Server] = {}
        for every in EVERY:
            place = folder / f"every-{every}"
            place.mkdir()
            server = servers[every] = Server(place, *options(arguments, every))
            stack.enter_context(server)
            anyio.run(tokens_per_s, server, 2, -1)  # until it is loaded
            progress(f"checkpoints every {every}: loaded")
        found: dict[int | None, list[float]] = {every: [] for every in EVERY}
        for turn in range(arguments.rounds):
            for every in EVERY[:: 1 if turn % 2 else -1]:
                rate = anyio.run(tokens_per_s, servers[every], arguments.answers, turn)
                found[every].append(rate)
            progress(f"round {turn + 1} of {arguments.rounds}")
    plain = Figure("no checkpoints", "tokens/s", found[None])
    kept = [Figure(f"every {every}", "tokens/s", found[every]) for every in EVERY[1:]]
    return [plain, *kept, *(ratio(each, plain, COST_MAX) for each in kept)]


def saved(found: Sequence[Killed], *, strict: bool) -> list[Figure]:
    same = sum(each.same for each in found) / len(found)
    again = [max(0.0, each.made - each.kept) for each in found]
    share = sum(again) / (TOKENS * len(found))
    return [
        Figure("answers whose engine was killed", "answers", [len(found)]),
        Figure("same text", "x", [same], 1.0 if strict else None),
        Figure("made again / all tokens", "x", [share], AGAIN_MAX, less=True),
        Figure("made again, p99", "tokens", [percentile(again, 99)], less=True),
    ]


def main() -> int:
    parser = report.options("checkpoint", __doc__, disk=True)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--every", type=int, default=16, help="tokens, where engines are killed")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--answers", type=int, default=64, help="in each round")
    parser.add_argument("--rounds", type=int, default=5, help="of throughput; 0: none")
    parser.add_argument("--vllm", action="store_true", help="the real engine")
    parser.add_argument("--model", default="smollm2", help="of the real engine")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.kills, arguments.rounds = 3, 1
    state = report.conditions(arguments, ("vllm",) if arguments.vllm else ())
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        place = Path(folder) / "killed"
        place.mkdir()
        with Server(place, *options(arguments, arguments.every)) as server:
            found = anyio.run(kills, server, arguments.kills)
        rows = saved(found, strict=not arguments.vllm)
        rows += cost(Path(folder), arguments) if arguments.rounds else []
    return report.finish(
        arguments.output, state, rows, {"killed": [each._asdict() for each in found]}
    )


if __name__ == "__main__":
    sys.exit(main())
