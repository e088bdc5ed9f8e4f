"""What all tests share."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import pytest

from tests.simulation.loop import VirtualClock, run_virtually

T = TypeVar("T")


class InVirtualTime(Protocol):
    def __call__(self, main: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T: ...


@pytest.fixture
def in_virtual_time() -> InVirtualTime:
    """Runs a coroutine function on a clock that jumps instead of waiting."""
    return run_virtually
