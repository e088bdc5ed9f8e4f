"""Time and randomness, handed in everywhere and imported nowhere else.

Two clocks are kept apart: `monotonic` for durations and deadlines, `wall_ms` for what people and
the store see. Wall time may jump in either direction; nothing is ordered by it.
"""

from __future__ import annotations

import random
import time
from typing import Protocol

import anyio


class Clock(Protocol):
    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean something."""
        ...

    def wall_ms(self) -> int:
        """Unix time in milliseconds; may jump."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class Rng(Protocol):
    def random(self) -> float:
        """A number in [0, 1)."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)


class SteadyWall:
    """Wall time as it was when this began, going on by the monotonic clock.

    A jump of the machine's clock while we run neither fires what is not due nor holds up what is.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wall_ms = clock.wall_ms()
        self._began = clock.monotonic()

    def now_ms(self) -> int:
        return self._wall_ms + int((self._clock.monotonic() - self._began) * 1000)


def system_rng() -> Rng:
    """Randomness seeded by the operating system."""
    return random.Random()
