"""What the scheduler knows of the backlog: a window on each lane, some thousand keys in all. Pure.

A lane is known by name as long as anything is pending in it. How many keys of it are held depends
on how many lanes there are, so that one tenant's million tasks do not crowd the others out; which
lanes are read first, on whose turn comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from actors.policy.window import Refill, Window
from runtime.store.protocol import Key, Lane
from runtime.store.scheduleprotocol import FetchBacklog, LaneRead

KEYS_MAX = 4096
"""Keys held in all."""
LANE_KEYS_MIN = 4
"""Keys held of a lane, however many lanes there are."""
LANES_PER_READ = 256
_NONE: Mapping[int, int] = {}


Place = tuple[float, ...]
"""Of a lane, among those of its queue: smaller is served sooner."""


class Order(Protocol):
    """What the shares say of a lane: whose backlog is to be known first."""

    def place(self, lane: Lane) -> Place: ...
    def capped(self, lane: Lane) -> bool:
        """Whether nothing more of it may run now, whatever waits in it."""
        ...

    def overdue(self, lane: Lane) -> bool:
        """Whether it comes before all lanes of its queue that can be taken from."""
        ...


class _Low(NamedTuple):
    """A lane of which more is wanted, where it stood when that began."""

    place: Place
    lane: Lane


class Head(NamedTuple):
    """Where a lane begins."""

    key: Key | None
    """None: not known."""
    held: bool
    """Whether `take` would give it now; if not, `key` is what it was a while ago."""


class Reading(msgspec.Struct, frozen=True):
    """A read of the store that is to be made, a part for each lane."""

    parts: tuple[tuple[Lane, Refill], ...]
    limit: int
    """Keys of each."""

    @property
    def query(self) -> FetchBacklog:
        return FetchBacklog(
            tuple(LaneRead(lane, part.after) for lane, part in self.parts), self.limit
        )


class Backlog:
    def __init__(self, order: Order, keys_max: int = KEYS_MAX, *, together: bool = True) -> None:
        """`together`: who begins alike may run one after the other."""
        self._order = order
        self._together = together
        self._keys_max = keys_max
        self._lanes: dict[Lane, Window] = {}
        self._known = False
        """Whether every lane in which something is pending is in `_lanes`."""
        self._low: dict[Lane, _Low] = {}
        """Lanes of which more is wanted."""
        self._low_in: dict[str, list[_Low]] = {}
        """The same as a heap for each queue, with some that are out of date."""
        self._keys = 0
        self._taken = 0
        """Since lanes were last looked at for being overdue."""
        self._reading: Reading | None = None
        self._changed: dict[Lane, None] = {}

    def arrived(
        self, ready: Mapping[Lane, Iterable[Key]], begins: Mapping[int, int] = _NONE
    ) -> None:
        """These became pending; what they begin with, by number, where it is worth knowing."""
        if not self._together:
            begins = _NONE
        for lane, keys in ready.items():
            window = self._lanes.get(lane)
            if window is None:
                window = self._lanes[lane] = Window(self._lane_max(), complete=self._known)
                self._changed[lane] = None
            before = len(window)
            window.arrived(keys, begins)
            self._note(lane, window, before)
        if self._keys > self._keys_max:
            self._make_room()

    def gone(self, gone: Mapping[Lane, Iterable[Key]]) -> None:
        """Under these keys nothing is pending any more."""
        for lane, keys in gone.items():
            if (window := self._lanes.get(lane)) is not None:
                before = len(window)
                window.gone(keys)
                self._note(lane, window, before)

    def head(self, lane: Lane) -> Key | None:
        """The first key of `lane`, as far as it is known."""
        window = self._lanes.get(lane)
        return None if window is None else window.head

    def take(self, lane: Lane, count: int) -> list[Key]:
        """The first keys of `lane`, up to `count`, removed: they are about to be claimed."""
        window = self._lanes[lane]
        before = len(window)
        keys = window.take(count)
        self._taken += len(keys)
        self._note(lane, window, before)
        return keys

    def lost_count(self) -> None:
        """An arrival was missed: only the store knows the backlog now."""
        self._changed.update(dict.fromkeys(self._lanes))
        self._lanes.clear()
        self._low.clear()
        self._low_in.clear()
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

    def reading_begins(self, *, idle: bool) -> Reading | None:
        """The read that is to be made now, if any: one at a time.

        `idle`: nothing that is held may run. Otherwise, while many keys are held, only lanes that
        come before all that are held are read.
        """
        if self._reading is not None or not self._low or not self._known:
            return None
        lanes = self._to_read(idle=idle)
        if not lanes:
            return None
        if self._keys_max - self._keys < len(lanes):
            self._make_room()
        lane_max = self._lane_max()
        missing = lane_max - lane_max // 4  # beyond what a window that wants more may hold
        limit = max(1, min(missing, (self._keys_max - self._keys) // len(lanes)))
        parts: list[tuple[Lane, Refill]] = []
        for lane in lanes:
            window = self._lanes[lane]
            window.keys_max = lane_max
            parts.append((lane, window.refill_begins(limit)))
            del self._low[lane]
        self._reading = Reading(tuple(parts), limit)
        return self._reading

    def read(
        self,
        reading: Reading,
        found: Sequence[Sequence[Key]],
        begins: Mapping[int, int] = _NONE,
    ) -> None:
        """The store's answer to `reading`, and what its keys begin with."""
        if reading is not self._reading:
            return
        if not self._together:
            begins = _NONE
        self._reading = None
        for (lane, refill), keys in zip(reading.parts, found, strict=True):
            window = self._lanes[lane]
            before = len(window)
            window.refilled(refill, keys, begins)
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

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._lanes

    def __len__(self) -> int:
        return self._keys

    def __repr__(self) -> str:
        return f"<Backlog {self._keys} keys of {len(self._lanes)} lanes>"

    def _to_read(self, *, idle: bool) -> list[Lane]:
        """The lanes to be read now, of each queue those that are served first."""
        crowded = 2 * self._keys >= self._keys_max
        if crowded and not idle:
            if self._taken < LANES_PER_READ:
                return []
            self._taken = 0
        chosen: list[Lane] = []
        each_max = max(1, LANES_PER_READ // len(self._low_in))
        for heap in self._low_in.values():
            aside: list[_Low] = []
            enough = len(chosen) + each_max
            while heap and len(chosen) < enough:
                low = heapq.heappop(heap)
                if self._low.get(low.lane) is not low:
                    continue
                aside.append(low)
                if self._order.capped(low.lane):
                    continue
                if crowded and not (idle or self._order.overdue(low.lane)):
                    break  # nor is anybody behind it
                if not (crowded and len(self._lanes[low.lane])):
                    chosen.append(low.lane)
            for low in aside:
                heapq.heappush(heap, low)
        return chosen

    def _standing(self, lane: Lane) -> tuple[bool, Place]:
        return self._order.capped(lane), self._order.place(lane)

    def _lane_max(self) -> int:
        return max(LANE_KEYS_MIN, self._keys_max // max(1, len(self._lanes)))

    def _note(self, lane: Lane, window: Window, before: int) -> None:
        """`window` had `before` keys and may have changed."""
        self._keys += len(window) - before
        self._changed[lane] = None
        if not window.wants_refill():
            self._low.pop(lane, None)
        elif lane not in self._low:
            low = self._low[lane] = _Low(self._order.place(lane), lane)
            heapq.heappush(self._low_in.setdefault(lane[0], []), low)
        if window.over:
            del self._lanes[lane]

    def _make_room(self) -> None:
        """Keep half of the keys: as many of each lane, of those whose turn comes first."""
        share = max(1, self._keys_max // (2 * len(self._lanes)))
        left = self._keys_max // 2
        held = [lane for lane, window in self._lanes.items() if len(window)]
        for lane in sorted(held, key=self._standing):
            window = self._lanes[lane]
            before = len(window)
            window.keep(min(share, left))
            left -= len(window)
            self._note(lane, window, before)
