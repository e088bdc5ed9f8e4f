"""The scheduler's window on the backlog: the first few thousand pending tasks, in order.

The backlog lives in the store. The window holds its smallest keys and knows how far it sees:
every pending task at or before the horizon is in the window, what lies beyond is only in the
store. Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import msgspec

from runtime.store.protocol import Key

KEYS_MAX = 4096
REFILL_BELOW = 1024


class Refill(msgspec.Struct, frozen=True):
    """A read of the store that is to be made: the `limit` first keys after `after`."""

    after: Key | None
    limit: int


class Window:
    def __init__(self, keys_max: int = KEYS_MAX, refill_below: int = REFILL_BELOW) -> None:
        self._keys: list[Key] = []
        self._horizon: Key | None = None
        """The last key up to which we know everything; None: nothing is known yet."""
        self._complete = False
        """Whether the horizon lies behind the whole backlog."""
        self._reading: Refill | None = None
        """The read under way. An answer to any other, such as one that an earlier instance asked
        for, does not join on to what is known.
        """
        self._meanwhile: list[Key] = []
        """Arrivals beyond the horizon since it began: it may not have seen them."""
        self._keys_max = keys_max
        self._refill_below = refill_below

    def arrived(self, keys: Iterable[Key]) -> None:
        """These became pending."""
        for key in keys:
            if self._complete or (self._horizon is not None and key <= self._horizon):
                self._insert(key)
            elif self._reading is not None:
                self._meanwhile.append(key)
        if len(self._keys) > self._keys_max:
            self._cut()

    def take(self, count: int) -> list[Key]:
        """The most urgent `count` keys, removed: they are about to be claimed."""
        taken, self._keys = self._keys[:count], self._keys[count:]
        return taken

    def wants_refill(self) -> bool:
        """Whether the store should be read from `refill_after` on."""
        return not self._complete and self._reading is None and len(self._keys) < self._refill_below

    def refill_begins(self) -> Refill:
        """The read that is to be made now."""
        self._meanwhile = []
        self._reading = Refill(self._horizon, self._keys_max - len(self._keys))
        return self._reading

    def refilled(self, refill: Refill, keys: Sequence[Key]) -> None:
        """The store's answer to `refill`."""
        if refill is not self._reading:
            return
        self._reading = None
        if len(keys) < refill.limit:
            self._complete = True
        else:
            self._horizon = keys[-1]
        self._keys = sorted({*self._keys, *keys})
        self.arrived(set(self._meanwhile).difference(keys))

    def refill_failed(self, refill: Refill) -> None:
        """The read could not be made: it will be wanted again."""
        if refill is self._reading:
            self._reading = None

    def lost_count(self) -> None:
        """An arrival was missed: only the store knows the backlog now."""
        self._keys = []
        self._horizon = None
        self._complete = False
        self._reading = None

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        sight = "all" if self._complete else f"to {self._horizon}"
        return f"<Window {len(self._keys)} keys, sees {sight}>"

    def _insert(self, key: Key) -> None:
        """In its place, unless the read that saw it was faster than the news of it."""
        keys = self._keys
        place = bisect_left(keys, key)
        if place == len(keys) or keys[place] != key:
            keys.insert(place, key)

    def _cut(self) -> None:
        """Too many: drop the worst and see less far, with room before the next cut."""
        del self._keys[self._keys_max // 2 :]
        self._horizon = self._keys[-1]
        self._complete = False
        self._reading = None  # it goes on from a horizon further out
