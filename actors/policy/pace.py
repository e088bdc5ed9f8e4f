"""How fast each lane is served, as measured, and what follows for who waits in it. Pure.

What is kept of a lane: how many of its tasks were answered, for how long it had work, and how much
time its tasks spent running, half of it forgotten in some forty seconds of work. Weights, caps,
engines and other lanes are in what is measured, so nothing has to be known of them; when they
change, the pace follows. What a task takes is the time spent over the tasks answered (Little's
law). Times are handed in, in seconds of any steady clock.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from actors.policy.running import weighted
from actors.policy.spent import Spent
from autoglm.eta import Eta
from autoglm.types import Usage
from runtime.store.backlog import AHEAD_MAX, Standing
from runtime.store.protocol import Lane, Left

LANES_MAX = 16_384
"""Lanes that are remembered."""
_MEMORY_S = 60.0
_SERVED_MIN = 0.5
"""Answers, as far as they are remembered, below which nothing is said."""


class _Lane(msgspec.Struct):
    as_of: float | None = None
    """Up to when it is counted; None: it has no work."""
    running: int = 0
    served: float = 0.0
    busy_s: float = 0.0
    spent_s: float = 0.0

    def advance(self, now: float) -> None:
        if self.as_of == now:
            return
        if self.as_of is not None:
            kept = math.exp((self.as_of - now) / _MEMORY_S)
            passed_s = _MEMORY_S * (1 - kept)
            self.served *= kept
            self.busy_s = self.busy_s * kept + passed_s
            self.spent_s = self.spent_s * kept + passed_s * self.running
        self.as_of = now


class Pace:
    def __init__(self) -> None:
        self.spent = Spent()
        """What the same attempts took."""
        self._lanes: dict[Lane, _Lane] = {}
        self._running: dict[int, Lane] = {}

    def began(self, tasks: Mapping[int, Lane], now: float) -> None:
        """These were claimed."""
        for seq, lane in tasks.items():
            known = self._lanes.pop(lane, None) or _Lane()
            self._lanes[lane] = known  # the last one that anything is known of
            known.advance(now)
            known.running += 1
            self._running[seq] = lane
        while len(self._lanes) > LANES_MAX:
            del self._lanes[next(iter(self._lanes))]

    def stopped(self, left: Iterable[Left], now: float, waits: Callable[[Lane], bool]) -> None:
        """These no longer run. One that took nothing was put back; `waits`: whether more of a lane
        are pending.
        """
        spent: dict[Lane, float] = {}
        for seq, usage in left:
            lane = self._running.pop(seq, None)
            known = None if lane is None else self._lanes.get(lane)
            if lane is None or known is None:
                continue
            known.advance(now)
            known.running -= 1
            known.served += usage != _NOTHING
            spent[lane] = spent.get(lane, 0.0) + weighted(usage)
            if not known.running and not waits(lane):
                known.as_of = None
        self.spent.add(spent, now)

    def lost_count(self) -> None:
        """Endings were missed. What was learned stays."""
        self._running.clear()
        for known in self._lanes.values():
            known.running, known.as_of = 0, None

    def waiting(self, lane: Lane, ahead: int, *, at_least: bool = False) -> Eta:
        """Of a task of `lane` that is pending, with so many of the same lane before it."""
        known = self._lanes.get(lane)
        if known is None or known.served < _SERVED_MIN:
            return Eta(None, None, ahead, at_least)
        starts_in_s = (ahead + 1) * known.busy_s / known.served
        takes_s = known.spent_s / known.served
        return Eta(round(starts_in_s, 1), round(starts_in_s + takes_s, 1), ahead, at_least)

    def done_in_s(self, waiting: Mapping[Lane, int]) -> float | None:
        """Until so many of these lanes are answered, at the pace of all of them together; what
        comes meanwhile is not foreseen. None: nothing is known yet, or nothing waits.
        """
        known = [self._lanes[lane] for lane in waiting if lane in self._lanes]
        known = [each for each in known if each.served >= _SERVED_MIN and each.busy_s > 0]
        total = sum(waiting.values())
        if not known or not total:
            return None
        per_s = sum(each.served / each.busy_s for each in known)
        takes_s = max(each.spent_s / each.served for each in known)
        return round(total / per_s + takes_s, 1)

    def running(self, lane: Lane, ran_s: float) -> Eta:
        """Of a task of `lane` that was claimed so long ago."""
        known = self._lanes.get(lane)
        if known is None or known.served < _SERVED_MIN:
            return Eta(0.0, None)
        return Eta(0.0, round(max(0.0, known.spent_s / known.served - ran_s), 1))

    def of(self, standing: Standing, now_ms: int) -> Eta:
        """The estimate for who stands there at this moment (Unix ms)."""
        since = standing.running_since
        if since is not None:
            return self.running(standing.lane, (now_ms - since) / 1000)
        at_least = standing.ahead >= AHEAD_MAX
        return self.waiting(standing.lane, standing.ahead, at_least=at_least)

    def __repr__(self) -> str:
        busiest = Counter(self._running.values()).most_common(1)
        return f"<Pace of {len(self._lanes)} lanes, {len(self._running)} run; most: {busiest}>"


_NOTHING = Usage()
