"""Which running generations to stop for others, when the engine is full. Pure.

A stopped generation keeps its tokens and its rank; to go on, its prompt and its tokens are
prefilled again, and an engine that prefills decodes for nobody meanwhile. So nothing is stopped
unless that pays. Time is counted in steps of the engine (one token for each running request), the
price of prefilling one token too, so the rules hold for engines of any speed.

How soon a slot frees by itself is unknown. As if lifetimes were exponential, the k-th of the slots
frees after k / sum(1 / expected tokens left) steps.

- `for_urgent`: for each waiting task of an urgent priority the running one that is not urgent and
  cheapest to bring back, if that costs fewer steps than the urgent one would wait, and less of the
  normalised latency of the other urgent ones, who stand still meanwhile, than it gains.
- `for_shorter`: for the first in line, a generation that has run for longer than was expected of
  it (its quantum), if normalised latency gains by it: the waiting one's wait over its length,
  against the stopped one's new wait over its own, and the steps that all others lose.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from runtime.store.protocol import URGENT_PRIORITY

STOPS_MAX = 8
"""How often a generation is stopped at most, so that everybody gets to an end."""


class Running(msgspec.Struct, frozen=True):
    """A request in the engine. All lengths are tokens."""

    seq: int
    priority: int
    prompt: int
    made: int
    expected: float
    """Of the whole answer, when it was sent."""
    stops: int = 0
    continuable: bool = True
    """Whether it goes on from its tokens; otherwise it would begin anew."""
    spared: bool = False
    """Not to be stopped for these who wait."""

    @property
    def again(self) -> int:
        """What would be prefilled again."""
        return self.prompt + self.made * self.continuable

    @property
    def yields(self) -> bool:
        """Whether it may be stopped for what is urgent."""
        return self.priority > URGENT_PRIORITY and self.stops < STOPS_MAX and not self.spared

    @property
    def order(self) -> tuple[bool, int, int]:
        """Who is stopped first: who would go on before who would begin anew, the cheapest first."""
        return not self.continuable, self.again, self.seq

    def but_spared(self) -> Running:
        return self if self.spared else msgspec.structs.replace(self, spared=True)

    def price(self, prefill_steps: float) -> float:
        """Steps that stopping it takes."""
        return self.again * prefill_steps + self.made * (not self.continuable)

    @property
    def left(self) -> float:
        """Expected still: of what has outlived its expectation, as much again as it has made."""
        return max(1.0, self.expected - self.made if self.made < self.expected else self.made)

    @property
    def length(self) -> float:
        return self.made + self.left


class Waiting(msgspec.Struct, frozen=True):
    """A task that would go in next if there were a slot."""

    priority: int
    expected: float


def slot_frees_in(running: Sequence[Running]) -> float:
    """Steps until a slot frees by itself, as far as anybody can tell."""
    return 1 / sum(1 / each.left for each in running)


def for_urgent(
    running: Sequence[Running], waiting: Sequence[Waiting], prefill_steps: float
) -> tuple[int, ...]:
    """The `seq`s to stop so that the urgent ones of `waiting` (in order of rank) enter at once.

    `running` fills the engine. Prefilling one token takes `prefill_steps` steps.
    """
    urgent = [each for each in waiting if each.priority <= URGENT_PRIORITY]
    if not urgent:
        return ()
    victims = sorted((each for each in running if each.yields), key=lambda each: each.order)
    others = sum(1 / each.length for each in running if each.priority <= URGENT_PRIORITY)
    pause = slot_frees_in(running)
    stopped: list[int] = []
    for count, (victim, enters) in enumerate(zip(victims, urgent, strict=False), start=1):
        price, length = victim.price(prefill_steps), max(1.0, enters.expected)
        if price * max(1.0, others * length) >= count * pause:
            break
        stopped.append(victim.seq)
        others += 1 / length
    return tuple(stopped)


def for_shorter(
    running: Sequence[Running], waiting: Sequence[Waiting], prefill_steps: float
) -> tuple[int, ...]:
    """The `seq` to stop, if any, so that the first of `waiting` (in order of rank) enters."""
    victims = [each for each in running if each.expected <= each.made and each.stops < STOPS_MAX]
    if not (victims and waiting):
        return ()
    first, pause = waiting[0], slot_frees_in(running)
    victims = [each for each in victims if each.priority >= first.priority]
    everybody = sum(1 / each.length for each in running)
    everybody += sum(1 / max(1.0, each.expected) for each in waiting)

    def gain(each: Running) -> float:
        lost = each.again * prefill_steps * everybody
        return pause / max(1.0, first.expected) - pause / each.length - lost

    best = max(victims, key=lambda each: (gain(each), -each.seq), default=None)
    return (best.seq,) if best is not None and gain(best) > 0 else ()
