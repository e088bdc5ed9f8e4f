"""Run worlds by hand: `python -P -m tests.simulation --seeds 1000`, or replay one `--seed`."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import Report, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="replay this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every step")
    parser.add_argument("--seeds", type=int, default=200, help="how many to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--mutant", choices=MUTANTS, help="plant this bug")
    options = parser.parse_args()
    planted = MUTANTS[options.mutant].planted() if options.mutant else contextlib.nullcontext()
    with planted:
        if options.seed is not None:
            report = simulate(options.seed, trace=options.trace)
            print("\n".join((*report.trace, str(report))))
            return 1 if report.violations else 0
        return _run_many(range(options.start, options.start + options.seeds))


def _run_many(seeds: range) -> int:
    began = time.perf_counter()
    reports: list[Report] = []
    for seed in seeds:
        report = simulate(seed)
        reports.append(report)
        if report.violations:
            print(report, flush=True)
    bad = [report for report in reports if report.violations]
    print(
        f"{len(reports)} seeds, {sum(report.steps for report in reports)} steps,"
        f" {sum(report.crashes for report in reports)} crashes,"
        f" {sum(report.tasks for report in reports)} tasks,"
        f" {len(bad)} seeds with violations, {time.perf_counter() - began:.1f} s"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
