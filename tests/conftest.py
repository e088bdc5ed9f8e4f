"""What all tests share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from tests.simulation.loop import VirtualClock, run_virtually

T = TypeVar("T")

# A loaded machine is no finding, and the same tests pass twice on the same code; to look further:
# pytest --hypothesis-profile=explore
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("explore"), derandomize=True)
settings.load_profile("steady")

# A shell that starts us in the background has us ignore Ctrl-C, and with us every process that a
# test starts, also those that are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)


class InVirtualTime(Protocol):
    def __call__(self, main: Callable[[VirtualClock], Coroutine[Any, Any, T]]) -> T: ...


@pytest.fixture
def in_virtual_time() -> InVirtualTime:
    """Runs a coroutine function on a clock that jumps instead of waiting."""
    return run_virtually
