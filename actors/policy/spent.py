"""What the engines did for each lane lately: tokens as shares count them, fading. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from runtime.store.protocol import Lane

MEMORY_S = 60.0
"""What is older counts little: it is worth 1/e of what is new."""
LANES_MAX = 16_384
"""Lanes that are remembered."""
_NOTHING = 0.5
"""Tokens that are forgotten altogether."""


class Spent:
    def __init__(self) -> None:
        self._lanes: dict[Lane, tuple[float, float]] = {}
        """Tokens, and as of when; whoever got some last is at the end."""

    def add(self, tokens: Mapping[Lane, float], now: float) -> None:
        """Attempts of these lanes ended, which took so much."""
        for lane, more in tokens.items():
            self._lanes[lane] = (self._faded(self._lanes.pop(lane, (0.0, now)), now) + more, now)
        while len(self._lanes) > LANES_MAX:
            del self._lanes[next(iter(self._lanes))]

    def shares(self, now: float) -> dict[Lane, float]:
        """Of all that was done lately, 0 to 1; lanes that got next to nothing are left out."""
        tokens = {lane: self._faded(each, now) for lane, each in self._lanes.items()}
        tokens = {lane: count for lane, count in tokens.items() if count >= _NOTHING}
        total = sum(tokens.values())
        return {lane: count / total for lane, count in tokens.items()}

    def __repr__(self) -> str:
        return f"<Spent on {len(self._lanes)} lanes>"

    @staticmethod
    def _faded(known: tuple[float, float], now: float) -> float:
        tokens, at = known
        return tokens * math.exp(-max(0.0, now - at) / MEMORY_S)
