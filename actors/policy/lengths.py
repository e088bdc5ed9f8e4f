"""How long answers are expected to be, learned as tasks end, and what that does to ranks. Pure.

**Expected length.** Three levels, each drawn towards the one above it while it has seen little:
all tasks, the (tenant, kind) pair, and within the pair prompts of one size (powers of two). What
the level above says counts as much as `PRIOR` answers: the posterior of a normal mean whose prior
weighs so much (Gelman et al., Bayesian Data Analysis, 2.5). Means remember a bounded number of
answers, so what was long ago is forgotten. `max_tokens` caps the result.

**Rank.** The mean normalised latency weighs a task with 1 / its length, so the best order is by
1 / length over work (Smith 1956, weighted shortest first), and with work in proportion to length
that is 1 / length². A task's rank is moved forward by

    boost = span x min(1, 1 / (20 x²)),    x = expected length / mean expected length of all tasks

where `span` is the longest time between submission and answer that was seen lately. So what is
expected to be shorter than about a fifth of the mean passes all that waits, what is as long as the
mean passes a twentieth of it. Time comes from `span` and lengths are ratios: nothing depends on how
fast the engine is or how many slots it has, and where all answers are expected alike the order
is that of arrival.

**Starvation.** A boost is at most `span`, and `span` at most half an hour. So because of its length
a task is passed only by what comes within `span` after it, and never by a task that came with it
at a less urgent priority: that is an hour away.

What is learned lives in memory, bounded, and is learned anew after a restart; until the first
answer no rank is moved.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

PAIRS_MAX = 4096
"""(tenant, kind) pairs that are remembered; the one least recently used goes."""
BOOSTS_MAX = 1024
SIZES = 16
"""Sizes of prompts that are told apart: the last one takes all that are longer."""
PRIOR = 8.0
"""A level's answers that count as much as what the level above it says."""
MEMORY = 1024
"""Answers that a pair's means remember."""
MEMORY_OVERALL = 16_384
"""Answers that the mean of all remembers: longer than short ones are let through in a row, or the
order would move its own measure.
"""
SPAN_MEMORY = 4096
"""Answers over which `span` falls to 1/e when none takes as long any more."""
SPAN_MS_MAX = 1_800_000
STEEPNESS = 20.0
"""1 / the boost of a task of mean length, as a share of `span`."""


class Mean:
    """Of the last `memory` values, roughly; exact for the first ones."""

    __slots__ = ("count", "memory", "value")

    def __init__(self, memory: int = MEMORY) -> None:
        self.memory = memory
        self.count = 0
        self.value = 0.0

    def add(self, value: float) -> None:
        self.count = min(self.memory, self.count + 1)
        self.value += (value - self.value) / self.count

    def drawn_to(self, prior: float) -> float:
        """The mean, as if `PRIOR` more values had been `prior`."""
        return (self.count * self.value + PRIOR * prior) / (self.count + PRIOR)


class Pair:
    """What is known of one tenant's tasks of one kind."""

    __slots__ = ("all", "sizes")

    def __init__(self) -> None:
        self.all = Mean()
        self.sizes: dict[int, Mean] = {}


class LengthsStatistics(msgspec.Struct, frozen=True):
    answers: int
    """At most `MEMORY_OVERALL`."""
    mean_tokens: float
    pairs: int
    span_ms: float


class Lengths:
    def __init__(self, pairs_max: int = PAIRS_MAX) -> None:
        self._pairs_max = pairs_max
        self._pairs: OrderedDict[tuple[str, str | None], Pair] = OrderedDict()
        """Least recently used first."""
        self._overall = Mean(MEMORY_OVERALL)
        self._span_ms = 0.0
        self._boosts: dict[tuple[str, str | None, int, int | None], int] = {}
        """What was said since an answer was last learned of: many that come together are alike."""

    def __repr__(self) -> str:
        return f"<Lengths {len(self._pairs)} pairs, mean {self._overall.value:.0f}>"

    def ended(
        self, tenant: str, kind: str | None, prompt_chars: int, tokens: int, age_ms: int
    ) -> None:
        """A task was answered with so many `tokens`, `age_ms` after it could first have run."""
        tokens = max(1, tokens)
        pair, size = self._pair(tenant, kind), _size(prompt_chars)
        mean = pair.sizes.get(size)
        if mean is None:
            mean = pair.sizes[size] = Mean()
        for each in (pair.all, mean, self._overall):
            each.add(tokens)
        self._boosts.clear()
        faded = self._span_ms * (1 - 1 / SPAN_MEMORY)
        self._span_ms = min(float(SPAN_MS_MAX), max(float(age_ms), faded))

    def expected(
        self, tenant: str, kind: str | None, prompt_chars: int, max_tokens: int | None = None
    ) -> float:
        """Tokens that the answer is expected to have: 0 while nothing is known."""
        length = self._overall.value
        pair = self._pairs.get((tenant, kind))
        if pair is not None:
            length = pair.all.drawn_to(length)
            size = pair.sizes.get(_size(prompt_chars))
            length = length if size is None else size.drawn_to(length)
        return length if max_tokens is None else min(length, float(max_tokens))

    def boost_ms(
        self, tenant: str, kind: str | None, prompt_chars: int, max_tokens: int | None = None
    ) -> int:
        """What is to be taken off the task's rank: 0 to `span`, less for what is longer."""
        if not self._overall.count:
            return 0
        alike = (tenant, kind, _size(prompt_chars), max_tokens)
        known = self._boosts.get(alike)
        if known is None:
            ratio = self.expected(tenant, kind, prompt_chars, max_tokens) / self._overall.value
            known = self._boosts[alike] = round(self._span_ms * boost(ratio))
            if len(self._boosts) > BOOSTS_MAX:
                self._boosts.clear()
        return known

    def statistics(self) -> LengthsStatistics:
        mean = self._overall
        return LengthsStatistics(mean.count, mean.value, len(self._pairs), self._span_ms)

    def _pair(self, tenant: str, kind: str | None) -> Pair:
        key = (tenant, kind)
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pairs[key] = Pair()
            if len(self._pairs) > self._pairs_max:
                self._pairs.popitem(last=False)
        self._pairs.move_to_end(key)
        return pair


def boost(ratio: float) -> float:
    """The share of `span` that an answer is moved forward which is expected to be `ratio` times as
    long as the mean: 1 for the shortest, towards 0 for the longest.
    """
    return 1.0 if STEEPNESS * ratio * ratio <= 1 else 1 / (STEEPNESS * ratio * ratio)


def _size(prompt_chars: int) -> int:
    """The power of two that a prompt's length falls in."""
    return min(SIZES - 1, prompt_chars.bit_length())
