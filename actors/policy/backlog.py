"""What the scheduler knows of the backlog: a window on each lane, some thousand keys in all. Pure.

A lane is known by name as long as anything is pending in it. How many keys of it are held depends
on how many lanes there are, so that one tenant's million tasks do not crowd the others out; which
lanes are read first, on whose turn comes first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from actors.policy.window import Refill, Window
from runtime.store.protocol import Key, Lane, LaneRead

KEYS_MAX = 4096
"""Keys held in all."""
LANE_KEYS_MIN = 4
"""Keys held of a lane, however many lanes there are."""
LANES_PER_READ = 256


Place = tuple[float, ...]
"""Of a lane, among others: smaller is served sooner."""
NOWHERE: Place = (math.inf,)
"""Of a lane of which nothing can run now, whatever waits in it."""


class Head(NamedTuple):
    """Where a lane begins."""

    key: Key | None
    """None: not known."""
    held: bool
    """Whether `take` would give it now; if not, `key` is what it was a while ago."""


class Reading(msgspec.Struct, frozen=True):
    """A read of the store that is to be made, a part for each lane."""

    parts: tuple[tuple[Lane, Refill], ...]

    @property
    def reads(self) -> tuple[LaneRead, ...]:
        return tuple(LaneRead(lane, part.after, part.limit) for lane, part in self.parts)


class Backlog:
    def __init__(self, place: Callable[[Lane], Place], keys_max: int = KEYS_MAX) -> None:
        self._place = place
        self._keys_max = keys_max
        self._lanes: dict[Lane, Window] = {}
        self._known = False
        """Whether every lane in which something is pending is in `_lanes`."""
        self._low: dict[Lane, None] = {}
        """Lanes of which more is wanted."""
        self._keys = 0
        self._taken = 0
        """Since lanes were last looked at for being overdue."""
        self._reading: Reading | None = None
        self._changed: dict[Lane, None] = {}

    def arrived(self, ready: Mapping[Lane, Iterable[Key]]) -> None:
        """These became pending."""
        for lane, keys in ready.items():
            window = self._lanes.get(lane)
            if window is None:
                window = self._lanes[lane] = Window(self._lane_max(), complete=self._known)
                self._changed[lane] = None
            before = len(window)
            window.arrived(keys)
            self._note(lane, window, before)
        if self._keys > self._keys_max:
            self._make_room()

    def take(self, lane: Lane) -> Key:
        """The first key of `lane`, removed: it is about to be claimed."""
        window = self._lanes[lane]
        key = window.take()
        self._taken += 1
        self._note(lane, window, len(window) + 1)
        return key

    def lost_count(self) -> None:
        """An arrival was missed: only the store knows the backlog now."""
        self._changed.update(dict.fromkeys(self._lanes))
        self._lanes.clear()
        self._low.clear()
        self._keys, self._known, self._reading = 0, False, None

    def learned(self, heads: Mapping[Lane, Key]) -> None:
        """All lanes in which something was pending a moment ago, each with its first key."""
        self._known = True
        new = [lane for lane in heads if lane not in self._lanes]
        lane_max = max(LANE_KEYS_MIN, self._keys_max // max(1, len(self._lanes) + len(new)))
        for lane in new:
            window = self._lanes[lane] = Window(lane_max, heads[lane])
            self._changed[lane] = None
            self._note(lane, window, 0)

    def reading_begins(self, due: Place | None) -> Reading | None:
        """The read that is to be made now, if any: one at a time.

        `due`: the place of who is next. While many keys are held, only lanes that come before are
        read.
        """
        if self._reading is not None or not self._low or not self._known:
            return None
        lanes = self._to_read(due)
        if not lanes:
            return None
        if self._keys_max - self._keys < len(lanes):
            self._make_room()
        each_max = max(1, (self._keys_max - self._keys) // len(lanes))
        parts: list[tuple[Lane, Refill]] = []
        for lane in lanes:
            window = self._lanes[lane]
            window.keys_max = self._lane_max()
            limit = max(1, min(each_max, window.keys_max - len(window)))
            parts.append((lane, window.refill_begins(limit)))
            del self._low[lane]
        self._reading = Reading(tuple(parts))
        return self._reading

    def read(self, reading: Reading, found: Sequence[Sequence[Key]]) -> None:
        """The store's answer to `reading`."""
        if reading is not self._reading:
            return
        self._reading = None
        for (lane, refill), keys in zip(reading.parts, found, strict=True):
            window = self._lanes[lane]
            before = len(window)
            window.refilled(refill, keys)
            self._note(lane, window, before)

    def read_failed(self, reading: Reading) -> None:
        """It could not be made: it will be wanted again."""
        if reading is not self._reading:
            return
        self._reading = None
        for lane, refill in reading.parts:
            window = self._lanes[lane]
            window.refill_failed(refill)
            self._note(lane, window, len(window))

    def changes(self) -> list[tuple[Lane, Head | None]]:
        """Lanes whose head may be another than before, with it; None: nothing is pending there."""
        changed, self._changed = self._changed, {}
        heads: list[tuple[Lane, Head | None]] = []
        for lane in changed:
            window = self._lanes.get(lane)
            heads.append((lane, None if window is None else Head(window.head, len(window) > 0)))
        return heads

    def __len__(self) -> int:
        return self._keys

    def __repr__(self) -> str:
        return f"<Backlog {self._keys} keys of {len(self._lanes)} lanes>"

    def _to_read(self, due: Place | None) -> list[Lane]:
        low = [(place, lane) for lane in self._low if (place := self._place(lane)) != NOWHERE]
        if 2 * self._keys >= self._keys_max:
            low = [each for each in low if not len(self._lanes[each[1]])]
        if due is not None and 2 * self._keys >= self._keys_max:
            if self._taken < LANES_PER_READ:
                return []
            self._taken = 0
            low = [each for each in low if each[0] < due]
        return [lane for _, lane in heapq.nsmallest(LANES_PER_READ, low)]

    def _lane_max(self) -> int:
        return max(LANE_KEYS_MIN, self._keys_max // max(1, len(self._lanes)))

    def _note(self, lane: Lane, window: Window, before: int) -> None:
        """`window` had `before` keys and may have changed."""
        self._keys += len(window) - before
        self._changed[lane] = None
        if window.wants_refill():
            self._low[lane] = None
        else:
            self._low.pop(lane, None)
        if window.over:
            del self._lanes[lane]

    def _make_room(self) -> None:
        """Keep half of the keys: as many of each lane, of those whose turn comes first."""
        share = max(1, self._keys_max // (2 * len(self._lanes)))
        left = self._keys_max // 2
        held = [lane for lane, window in self._lanes.items() if len(window)]
        for lane in sorted(held, key=self._place):
            window = self._lanes[lane]
            before = len(window)
            window.keep(min(share, left))
            left -= len(window)
            self._note(lane, window, before)
