"""How fast tasks end at the moment: a rate that forgets. Pure; time in monotonic seconds."""

from __future__ import annotations

import math

MEMORY_S = 10.0
"""What is older counts little: it is worth 1/e of what is new."""


class Tempo:
    def __init__(self, now: float) -> None:
        self._began = self._at = now
        self._weight = 0.0

    def ended(self, count: int, now: float) -> None:
        self._weight = self._faded(now) + count
        self._at = now

    def per_s(self, now: float) -> float:
        """Endings a second. Of a short life, what there is of it counts in full."""
        lived = 1 - math.exp(-max(1.0, now - self._began) / MEMORY_S)
        return self._faded(now) / (MEMORY_S * lived)

    def _faded(self, now: float) -> float:
        return self._weight * math.exp(-max(0.0, now - self._at) / MEMORY_S)
