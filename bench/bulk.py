"""Urgent tasks over a file that fills the engine: a part of bench/scheduling.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from actors.policy.preempt import for_urgent
from bench.orders import OURS, Request
from bench.replay import Machine, Replayed, normalised, replayed, saturation_s, scaled
from bench.report import Figure, less, percentile

DATA: Final = Path(__file__).parent / "data"
URGENT: Final = 1
FILE: Final = 5


def questions() -> list[Request]:
    """A file of grade-school questions; a word is a token."""
    lines = (DATA / "gsm8k_sample.jsonl").read_text().splitlines()
    bodies = [json.loads(line)["body"] for line in lines]
    return [
        Request(
            0.0,
            sum(len(message["content"].split()) for message in body["messages"]),
            body["max_tokens"],
            "file",
            FILE,
        )
        for body in bodies
    ]


WAYS: Final[dict[str, dict[str, Any]]] = {
    "": {},
    ", stopping others": {"stop": for_urgent, "at_once": True},
    ", one slot kept free": {"reserve": 1, "at_once": True},
}
"""How what is urgent gets in when the engine is full; the first one is what the figures are of."""


def over_bulk(
    urgent: Sequence[Request], bulk: Sequence[Request], machine: Machine, name: str, *, bar: bool
) -> list[Figure]:
    """The trace at half load as urgent tasks, over a file that would fill the engine alone."""
    tasks = [each._replace(priority=URGENT) for each in scaled(urgent, machine, 0.5)]
    until_s = tasks[-1].arrival_s
    alone = percentile(normalised(tasks, replayed(tasks, machine, OURS)), 99)
    some = [each._replace(arrival_s=0.0) for each in islice(cycle(bulk), 4000)]
    file_rate = sum(each.output for each in some) / saturation_s(some, machine)
    left_s = until_s - saturation_s(tasks, machine)
    count = int(1.5 * left_s * file_rate * len(some) / sum(each.output for each in some))
    both = [*islice(cycle(some), count), *tasks]
    fifo_s = max(replayed(both, machine, "fifo").finished_s)
    figures: list[Figure] = []
    for way, how in WAYS.items():
        done = replayed(both, machine, OURS, **how)
        ends = Replayed([], done.finished_s[count:])
        p99 = percentile(normalised(both[count:], ends), 99)
        file = zip(both[:count], done.finished_s[:count], strict=True)
        tokens = sum(each.output for each, end in file if end <= until_s)
        floors = (1.2, 0.95, 0.98) if bar and not way else (None, None, None)
        share, whole = tokens / file_rate / left_s, fifo_s / max(done.finished_s)
        figures += [
            less(f"urgent over {name}{way}: p99 / alone", p99 / alone, floors[0]),
            Figure(f"urgent over {name}{way}: file / left over", "x", [share], floors[1]),
            Figure(f"urgent over {name}{way}: throughput / fifo", "x", [whole], floors[2]),
        ]
    return figures
