"""What is known of one lane's backlog: its first pending tasks, in order.

The backlog lives in the store. The window holds the smallest keys of a lane and knows how far it
sees: every pending task at or before the horizon is in the window, what lies beyond is only in the
store. Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import msgspec

from runtime.store.protocol import Key


class Refill(msgspec.Struct, frozen=True):
    """A read of the store that is to be made: the `limit` first keys after `after`."""

    after: Key | None
    limit: int


class Window:
    def __init__(self, keys_max: int, head: Key | None = None, *, complete: bool = False) -> None:
        """`complete`: the lane was empty until now; `head`: its first key, as far as is known."""
        self.keys_max = keys_max
        """How many it holds. Below a quarter of it, more are wanted."""
        self._keys: list[Key] = []
        self._head = head
        self._horizon: Key | None = None
        """The last key up to which we know everything; None: nothing is known yet."""
        self._complete = complete
        """Whether the horizon lies behind the whole backlog."""
        self._reading: Refill | None = None
        """The read under way. An answer to any other, such as one that an earlier instance asked
        for, does not join on to what is known.
        """
        self._meanwhile: list[Key] = []
        """Arrivals beyond the horizon since it began: it may not have seen them."""
        self._gone: set[Key] = set()
        """What became void since it began: it may have seen it still."""

    def arrived(self, keys: Iterable[Key]) -> None:
        """These became pending."""
        for key in keys:
            self._gone.discard(key)
            if self._complete or (self._horizon is not None and key <= self._horizon):
                self._insert(key)
            elif self._reading is not None:
                self._meanwhile.append(key)
        if len(self._keys) > self.keys_max:
            self.keep(self.keys_max // 2)

    def gone(self, keys: Iterable[Key]) -> None:
        """Under these keys nothing is pending any more."""
        void = set(keys)
        self._keys = [key for key in self._keys if key not in void]
        self._meanwhile = [key for key in self._meanwhile if key not in void]
        if self._reading is not None:
            self._gone |= void

    def take(self, count: int) -> list[Key]:
        """The first `count` keys, or those there are, removed: they are about to be claimed."""
        taken = self._keys[:count]
        del self._keys[:count]
        return taken

    @property
    def head(self) -> Key | None:
        """Its first key; None: unknown."""
        return self._keys[0] if self._keys else self._head

    @property
    def over(self) -> bool:
        """Whether nothing is pending in the lane."""
        return self._complete and not self._keys

    def wants_refill(self) -> bool:
        """Whether the store should be read on from the horizon."""
        low = len(self._keys) <= self.keys_max // 4
        return low and not self._complete and self._reading is None

    def refill_begins(self, limit: int) -> Refill:
        """The read that is to be made now."""
        self._meanwhile, self._gone = [], set()
        self._reading = Refill(self._horizon, limit)
        return self._reading

    def refilled(self, refill: Refill, keys: Sequence[Key]) -> None:
        """The store's answer to `refill`."""
        if refill is not self._reading:
            return
        self._reading = self._head = None
        if len(keys) < refill.limit:
            self._complete = True
        else:
            self._horizon = keys[-1]
        self._keys = sorted({*self._keys, *keys} - self._gone)
        self.arrived(set(self._meanwhile).difference(keys))

    def refill_failed(self, refill: Refill) -> None:
        """The read could not be made: it will be wanted again."""
        if refill is self._reading:
            self._reading = None

    def keep(self, count: int) -> None:
        """Drop all but the first `count` keys and see less far."""
        if count >= len(self._keys):
            return
        self._head = self._keys[0]
        del self._keys[count:]
        self._horizon = self._keys[-1] if self._keys else None
        self._complete = False
        self._reading = None  # it goes on from a horizon further out

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
