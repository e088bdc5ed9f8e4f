"""The whole server survives everything, and a simulation that finds no planted bug is no proof."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.simulation import simulate

SEEDS_PER_MUTANT = 400

ROOT = Path(__file__).parents[2]


def test_nothing_acknowledged_is_lost_and_everything_is_answered_once(seed: int) -> None:
    report = simulate(seed)
    assert not report.violations, str(report)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    with MUTANTS[name].planted():
        assert any(simulate(seed).violations for seed in range(SEEDS_PER_MUTANT))


def test_a_seed_makes_the_same_world_each_time_and_in_every_process() -> None:
    here = [simulate(seed).digest for seed in range(5)]
    assert here == [simulate(seed).digest for seed in range(5)]
    program = (
        "from tests.simulation.simulation import simulate\n"
        "print(*(simulate(seed).digest for seed in range(5)))"
    )
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-P", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        )
        assert there.stdout.split() == here
