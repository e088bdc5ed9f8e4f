"""Watches the supervisors: nobody is started while a breaker is open, nor more often than allowed.

What is allowed is told here once more, without the breaker: of five failures within a minute, and
of four in a row without stable uptime between, the last is followed by a pause.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from runtime.breaker import BreakerState
from runtime.clock import Clock
from runtime.supervision import ChildState, Supervised, Supervisor

RunOnce = Callable[..., Awaitable[None]]


class RestartWatch:
    """In place of `Supervisor._run_once`, which it calls."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.found: list[str] = []
        self.starts = 0
        self._failures: dict[Supervised, list[float]] = defaultdict(list)
        """Times at which a child failed by itself, as its breaker counted them."""
        self._failed: dict[Supervised, float] = {}

    def around(self, original: RunOnce) -> RunOnce:
        async def run_once(supervisor: Supervisor, child: Supervised, *args: Any) -> None:
            self._begin(child)
            counted = _counter(child)
            began = self._clock.monotonic()
            await original(supervisor, child, *args)
            now = self._clock.monotonic()
            forgiven = " consecutive=0 " in _counter(child)  # it died of somebody else's doing
            if forgiven or now - began >= child.spec.breaker.stable_s:
                self._failures[child].clear()
            counts = _counter(child) != counted and not forgiven
            if counts or child.breaker.state is BreakerState.OPEN:
                self._failures[child].append(now)
                self._failed[child] = now

        return run_once

    def _begin(self, child: Supervised) -> None:
        self.starts += 1
        now, name = self._clock.monotonic(), child.spec.name
        if child.breaker.state is BreakerState.OPEN or child.breaker.wait_s(now) > 0:
            self.found.append(f"{name} was started while its breaker was open")
        if child.state is ChildState.RUNNING:
            self.found.append(f"{name} was started while it ran")
        options, failures = child.spec.breaker, self._failures[child]
        recent = [at for at in failures if now - at <= options.window_s]
        many = len(recent) >= options.window_failures or len(failures) > options.consecutive_max
        if many and now <= self._failed[child]:
            self.found.append(f"{name} was started at once after {len(failures)} failures")
        if many:
            failures.clear()  # after the pause it begins anew


def _counter(child: Supervised) -> str:
    return repr(child.breaker)
