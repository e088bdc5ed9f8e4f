"""`--seed N` replays one world, `--seeds N` runs that many."""

from __future__ import annotations

import pytest

SEEDS = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="simulate this seed alone")
    parser.addoption("--seeds", type=int, default=SEEDS, help="how many seeds to simulate")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" not in metafunc.fixturenames:
        return
    config = metafunc.config
    seed: int | None = config.getoption("seed", None)
    count: int = config.getoption("seeds", None) or SEEDS
    metafunc.parametrize("seed", range(count) if seed is None else [seed])
