"""Exponential back-off with full jitter.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015: a delay drawn evenly from
nothing to the ceiling spreads those who failed together better than a fixed or half-fixed one.
"""

from __future__ import annotations


def ceiling(failures: int, base: float, cap: float) -> float:
    """The longest delay after `failures` (>= 1) failures in a row, in the unit of `base`."""
    return min(cap, base * 2.0 ** min(failures - 1, 62))


def full_jitter(failures: int, base: float, cap: float, draw: float) -> float:
    """A delay between 0 and the ceiling; `draw` is a random number in [0, 1)."""
    return ceiling(failures, base, cap) * draw
