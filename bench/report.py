"""What every benchmark has in common: options, conditions, figures with targets, JSON, the table.

A figure is the median of its samples, beside the floor it must hold and the aim it strives for.
A ratio is formed sample by sample between legs that took turns, so that a change of the machine's
speed meets both sides, and its figure is the median of those.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from model.processor import read_processor

HERE: Final = Path(__file__).parent
IN_MEMORY: Final = ("tmpfs", "ramfs")
FLAGS_THAT_MATTER: Final = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")


@dataclass(frozen=True)
class Figure:
    """One thing measured. `floor` is what decides whether it is met; without one, it only informs.

    A figure of which less is better (times, bytes, errors) has `less` set.
    """

    name: str
    unit: str
    samples: Sequence[float]
    floor: float | None = None
    aim: float | None = None
    less: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def met(self) -> bool:
        return self._reaches(self.floor) is not False

    def row(self) -> dict[str, Any]:
        """As it is written to the JSON file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "lowest": min(self.samples),
            "highest": max(self.samples),
            "floor": self.floor,
            "aim": self.aim,
            "less_is_better": self.less,
            "met": self.met,
            "samples": list(self.samples),
        }

    def __str__(self) -> str:
        span = f"{_short(min(self.samples))} to {_short(max(self.samples))}"
        text = f"{self.name:52} {_short(self.median):>10} {self.unit:12} ({span}"
        if self.floor is not None:
            text += f"; floor {_short(self.floor)}, {'met' if self.met else 'MISSED'}"
        if self.aim is not None:
            text += f"; aim {_short(self.aim)}, {'met' if self._reaches(self.aim) else 'not yet'}"
        return text + ")"

    def _reaches(self, target: float | None) -> bool | None:
        if target is None:
            return None
        return self.median <= target if self.less else self.median >= target


def ratio(
    of: Figure,
    to: Figure,
    floor: float | None = None,
    aim: float | None = None,
    *,
    less: bool = False,
) -> Figure:
    """`of` over `to`, sample by sample: those of the same round."""
    samples = [mine / other for mine, other in zip(of.samples, to.samples, strict=True)]
    return Figure(f"{of.name} / {to.name}", "x", samples, floor, aim, less)


def less(name: str, value: float, floor: float | None = None, aim: float | None = None) -> Figure:
    """A ratio of which less is better, where every run comes to the same."""
    return Figure(name, "x", [value], floor, aim, less=True)


def turns(rounds: int, legs: dict[str, Callable[[], Any]]) -> dict[str, list[Any]]:
    """What each leg came to, round by round; the legs take turns."""
    found: dict[str, list[Any]] = {name: [] for name in legs}
    for number in range(rounds):
        for name, run in legs.items():
            progress(f"round {number + 1} of {rounds}: {name}")
            found[name].append(run())
    return found


def percentile(samples: Iterable[float], percent: float) -> float:
    """The smallest sample that at least `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def options(name: str, description: str | None, *, disk: bool = False) -> argparse.ArgumentParser:
    """The options that every benchmark takes; with `disk` the folder that it measures too."""
    parser = argparse.ArgumentParser(prog=name, description=(description or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--output", type=Path, default=HERE / "results" / f"{name}.json")
    if disk:
        parser.add_argument("--folder", type=on_disk, default=".", help="on the disk to measure")
    return parser


def on_disk(text: str) -> Path:
    """The folder; memory that looks like a disk would make every figure a lie."""
    path = Path(text).resolve()
    if filesystem(path) in IN_MEMORY:
        raise argparse.ArgumentTypeError(f"{path} is in memory; name a folder on a disk")
    return path


def filesystem(path: Path) -> str:
    """Its kind, such as ext4."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((len(at), kind) for at, kind in mounts if path.is_relative_to(at))[1]


def conditions(arguments: argparse.Namespace, packages: Sequence[str] = ()) -> dict[str, Any]:
    """The machine, the versions and the options: what the figures hold for."""
    processor = read_processor()
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    model_name = next(line.split(": ")[1] for line in cpuinfo if line.startswith("model name"))
    return {
        "machine": {
            "processor": model_name,
            "cores": len(processor.cores),
            "flags": [flag for flag in FLAGS_THAT_MATTER if flag in processor.flags],
            "free_gib": round(processor.free_bytes / 2**30, 1),
            "kernel": platform.release(),
            "filesystem": filesystem(getattr(arguments, "folder", Path.cwd())),
            "load_average_at_start": os.getloadavg(),
        },
        "versions": {"python": platform.python_version()}
        | {each: installed(each) for each in ("autoglm", "uvloop", *packages)},
        "options": {
            name: value.name if isinstance(value, Path) else value
            for name, value in vars(arguments).items()
            if name != "output"
        },
    }


def installed(package: str) -> str | None:
    """Its version, or None when it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def finish(
    output: Path, state: dict[str, Any], figures: Sequence[Figure], details: dict[str, Any]
) -> int:
    """Write everything to `output`, print the table; 1 if a floor is missed, else 0."""
    state["machine"]["load_average_at_end"] = os.getloadavg()
    report = {"conditions": state, "figures": [each.row() for each in figures], **details}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print("\n".join(map(str, figures)))
    return 0 if all(each.met for each in figures) else 1


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
