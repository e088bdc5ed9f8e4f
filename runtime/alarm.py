"""An alarm clock for an actor: sets a signal at a point in time."""

from __future__ import annotations

import anyio

from runtime.bell import Signal
from runtime.clock import Clock


class Alarm:
    """At most one time is set. The owner takes the signal and sets the next time itself."""

    def __init__(self, clock: Clock, signal: Signal) -> None:
        self._clock = clock
        self._signal = signal
        self._at: float | None = None
        self._moved = anyio.Event()

    def no_later_than(self, at: float) -> None:
        """Ring at monotonic time `at`, or earlier if it was set to earlier."""
        if self._at is None or at < self._at:
            self._at = at
            self._moved.set()

    def rang(self) -> bool:
        """Whether it has rung since the last call."""
        return self._signal.take()

    async def run(self) -> None:
        while True:
            self._moved = anyio.Event()
            if self._at is None:
                await self._moved.wait()
                continue
            with anyio.move_on_after(max(0.0, self._at - self._clock.monotonic())):
                await self._moved.wait()
                continue
            self._at = None
            self._signal.set()
