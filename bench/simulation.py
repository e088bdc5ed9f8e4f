"""The deterministic simulation at length: seeds, what they came to, and how long they took.

One process on one core. The worlds are those of the tests: the whole server with crashes, power
losses, clock jumps and engine deaths, and every promise checked at the end of each seed.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Final

from bench import report
from bench.report import Figure, progress
from tests.simulation.simulation import Report, simulate

SEEDS_IN_SAMPLE: Final = 50


def main() -> int:
    parser = report.options("simulation", __doc__)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds = 2 * SEEDS_IN_SAMPLE
    state = report.conditions(arguments)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    reports: list[Report] = []
    pieces_s: list[float] = []
    cpu = time.process_time()
    for first in range(arguments.start, arguments.start + arguments.seeds, SEEDS_IN_SAMPLE):
        last = min(first + SEEDS_IN_SAMPLE, arguments.start + arguments.seeds)
        began = time.perf_counter()
        reports += map(simulate, range(first, last))
        pieces_s.append(time.perf_counter() - began)
        progress(f"{len(reports)} of {arguments.seeds} seeds, {sum(pieces_s):.0f} s")
    cpu = time.process_time() - cpu
    bad = [each for each in reports if each.violations]
    for each in bad:
        print(each)
    per_thousand = 1000 / arguments.seeds
    figures = [
        Figure("a thousand seeds", "s", [sum(pieces_s) * per_thousand], 300, 100, less=True),
        Figure("a thousand seeds: processor time", "s", [cpu * per_thousand], less=True),
        Figure("seeds", "", [len(reports)]),
        Figure("steps", "", [sum(each.steps for each in reports)]),
        Figure("crashes", "", [sum(each.crashes for each in reports)]),
        Figure("tasks", "", [sum(each.tasks for each in reports)]),
        Figure("seeds with violations", "", [len(bad)], 0, less=True),
    ]
    details = {"seconds_of_50_seeds": pieces_s, "violations": [str(each) for each in bad]}
    return report.finish(arguments.output, state, figures, details)


if __name__ == "__main__":
    sys.exit(main())
