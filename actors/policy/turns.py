"""Whose turn it is among names with weights: the least served, by virtual token counters. Pure.

The Virtual Token Counter (Sheng et al., Fairness in Serving Large Language Models, OSDI 2024): each
name has a counter of the tokens it was served, over its weight; the smallest goes first. Who comes
back from idleness is lifted to the smallest of those who wait: nobody saves up turns, and a stream
of newcomers keeps nobody out.

For two names that want to be served all the while, what they were served differs, over their
weights, by no more than what one task and the tasks under way of each may take.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import NamedTuple

SPARE = 64
"""Counters of idle names that are kept without a second look."""


class _Entry(NamedTuple):
    served: float
    number: int
    """Who has waited longest goes first among equals, or newcomers could keep him out for ever."""
    name: str


class Turns:
    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._served: dict[str, float] = {}
        """Weighted tokens; who is not in it stands where newcomers start."""
        self._wanting: dict[str, None] = {}
        self._offered: dict[str, _Entry] = {}
        """Of those wanting, who can be served at once, with their entry in the heap."""
        self._heap: list[_Entry] = []
        """Holds entries that are out of date, until they come to its head."""
        self._entries = 0
        self._now = 0.0
        """Where newcomers start when nobody can be served: where the last one was."""

    def enter(self, name: str) -> None:
        """`name` wants to be served from now on. Again: nothing changes."""
        if name not in self._wanting:
            self._wanting[name] = None
            self._served[name] = max(self.served(name), self._start())

    def leave(self, name: str) -> None:
        """`name` wants nothing more for now."""
        self.withdraw(name)
        self._wanting.pop(name, None)
        if self._served.get(name, math.inf) <= self._start():
            del self._served[name]  # it would start there anyway
        if not self._wanting:
            self._now = max(self._served.values(), default=self._now)
            self._served.clear()
        elif len(self._served) > 2 * len(self._wanting) + SPARE:
            self._forget()

    def offer(self, name: str) -> None:
        """`name` can be served at once."""
        if name not in self._offered:
            self._enqueue(name)

    def withdraw(self, name: str) -> None:
        """`name` wants to be served, but can't be at the moment."""
        self._offered.pop(name, None)

    def first(self) -> str | None:
        """The least served of those that can be served at once."""
        while self._heap:
            entry = self._heap[0]
            if self._offered.get(entry.name) is entry:
                return entry.name
            heapq.heappop(self._heap)
        return None

    def by_turn(self) -> list[str]:
        """All who want to be served, the least served first."""
        return sorted(self._wanting, key=self._served.__getitem__)

    def took_turn(self, name: str) -> None:
        """`name` is being served."""
        self._now = max(self._now, self.served(name))

    def charge(self, name: str, tokens: float) -> None:
        """`name` was served so many tokens more; less than it was charged before if negative."""
        self._served[name] = self.served(name) + tokens / self._weight_of(name)
        if name in self._offered:
            self._enqueue(name)
        elif name not in self._wanting and self._served[name] <= self._start():
            del self._served[name]

    def served(self, name: str) -> float:
        """Tokens over weight, comparable between names."""
        served = self._served.get(name)
        return self._start() if served is None else served

    def ahead(self, name: str) -> float:
        """How much more it was served than whoever is next."""
        return self.served(name) - self._start()

    def __len__(self) -> int:
        return len(self._wanting)

    def __repr__(self) -> str:
        return f"<Turns {len(self._offered)} of {len(self._wanting)} at {self._now:g}>"

    def _forget(self) -> None:
        """Drop the counters of those who are not there and would start no higher anyway."""
        self._served = {
            name: served
            for name, served in self._served.items()
            if name in self._wanting or served > self._start()
        }

    def _start(self) -> float:
        """Where newcomers start."""
        first = self.first()
        return self._now if first is None else self._served[first]

    def _enqueue(self, name: str) -> None:
        self._entries += 1
        entry = self._offered[name] = _Entry(self.served(name), self._entries, name)
        heapq.heappush(self._heap, entry)
