"""What is known of one lane's backlog: its first pending tasks, in order.

The backlog lives in the store. The window holds the smallest keys of a lane and knows how far it
sees: every pending task at or before the horizon is in the window, what lies beyond is only in the
store. Pure: no I/O, no clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from actors.policy.locality import SPAN_MS
from runtime.store.protocol import Key

_NONE: Mapping[int, int] = {}


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
        self._begins: dict[int, int] = {}
        """What those of them begin with that begin with something worth remembering, by number."""
        self._alike: Counter[int] = Counter()
        """How many of `_keys` begin with each."""
        self._run: deque[Key] = deque()
        """Taken out of `_keys`: who shares the beginning of the one that was taken last."""
        self._head = head
        self._horizon: Key | None = None
        """The last key up to which we know everything; None: nothing is known yet."""
        self._complete = complete
        """Whether the horizon lies behind the whole backlog."""
        self._reading: Refill | None = None
        """The read under way. An answer to any other, such as one that an earlier instance asked
        for, does not join on to what is known.
        """
        self._meanwhile: dict[Key, int | None] = {}
        """Arrivals beyond the horizon since it began, which it may not have seen, and what they
        begin with.
        """
        self._gone: set[Key] = set()
        """What became void since it began: it may have seen it still."""

    def arrived(self, keys: Iterable[Key], begins: Mapping[int, int] = _NONE) -> None:
        """These became pending; what they begin with, by number, where that is known."""
        for key in keys:
            self._gone.discard(key)
            if self._complete or (self._horizon is not None and key <= self._horizon):
                self._insert(key, begins.get(key[1]))
            elif self._reading is not None:
                self._meanwhile[key] = begins.get(key[1])
        if len(self) > self.keys_max:
            self.keep(self.keys_max // 2)

    def gone(self, keys: Iterable[Key]) -> None:
        """Under these keys nothing is pending any more."""
        void = set(keys)
        self._end_run()
        for key in void.intersection(self._keys):
            self._forget(key)
        self._keys = [key for key in self._keys if key not in void]
        for key in void.intersection(self._meanwhile):
            del self._meanwhile[key]
        if self._reading is not None:
            self._gone |= void

    def take(self, count: int) -> list[Key]:
        """The next `count` keys, or those there are, removed: they are about to be claimed."""
        if not self._begins:
            taken = self._keys[:count]
            del self._keys[:count]
            return taken
        taken: list[Key] = []
        while len(taken) < count and len(self):
            taken.append(self._take_one())
        return taken

    @property
    def head(self) -> Key | None:
        """The key that is taken next; None: unknown."""
        if self._run_is_next():
            return self._run[0]
        return self._keys[0] if self._keys else self._head

    @property
    def over(self) -> bool:
        """Whether nothing is pending in the lane."""
        return self._complete and not len(self)

    def wants_refill(self) -> bool:
        """Whether the store should be read on from the horizon."""
        low = len(self) <= self.keys_max // 4
        return low and not self._complete and self._reading is None

    def refill_begins(self, limit: int) -> Refill:
        """The read that is to be made now."""
        self._meanwhile, self._gone = {}, set()
        self._reading = Refill(self._horizon, limit)
        return self._reading

    def refilled(
        self, refill: Refill, keys: Sequence[Key], begins: Mapping[int, int] = _NONE
    ) -> None:
        """The store's answer to `refill`, and what its keys begin with."""
        if refill is not self._reading:
            return
        self._reading = self._head = None
        self._end_run()
        if len(keys) < refill.limit:
            self._complete = True
        else:
            self._horizon = keys[-1]
        for key in set(keys).difference(self._keys, self._gone):
            self._remember(key, begins.get(key[1]))
        self._keys = sorted({*self._keys, *keys} - self._gone)
        came = {key[1]: begins for key, begins in self._meanwhile.items() if begins is not None}
        self.arrived(set(self._meanwhile).difference(keys), came)

    def refill_failed(self, refill: Refill) -> None:
        """The read could not be made: it will be wanted again."""
        if refill is self._reading:
            self._reading = None

    def keep(self, count: int) -> None:
        """Drop all but the first `count` keys and see less far."""
        if count >= len(self):
            return
        self._end_run()
        self._head = self._keys[0]
        for key in self._keys[count:]:
            self._forget(key)
        del self._keys[count:]
        self._horizon = self._keys[-1] if self._keys else None
        self._complete = False
        self._reading = None  # it goes on from a horizon further out

    def __len__(self) -> int:
        return len(self._keys) + len(self._run)

    def __repr__(self) -> str:
        sight = "all" if self._complete else f"to {self._horizon}"
        return f"<Window {len(self)} keys, sees {sight}>"

    def _take_one(self) -> Key:
        if self._run_is_next():
            key = self._run.popleft()
            self._forget(key)
            return key
        self._end_run()
        key = self._keys.pop(0)
        begins = self._forget(key)
        if begins is not None and self._alike[begins]:
            self._begin_run(key, begins)
        return key

    def _begin_run(self, first: Key, begins: int) -> None:
        """Who shares the beginning of `first` and counts as its equal comes right after it."""
        upto = bisect_right(self._keys, (first[0] + SPAN_MS + 1,))
        run = [key for key in self._keys[:upto] if self._begins.get(key[1]) == begins]
        joined = set(run)
        self._keys[:upto] = [key for key in self._keys[:upto] if key not in joined]
        self._run.extend(run)

    def _run_is_next(self) -> bool:
        """Whether nobody came meanwhile who is clearly before it."""
        if not self._run:
            return False
        return not self._keys or self._run[0][0] <= self._keys[0][0] + SPAN_MS

    def _end_run(self) -> None:
        if self._run:
            self._keys = sorted({*self._keys, *self._run})
            self._run.clear()

    def _remember(self, key: Key, begins: int | None) -> None:
        if begins is not None and key[1] not in self._begins:
            self._begins[key[1]] = begins
            self._alike[begins] += 1

    def _forget(self, key: Key) -> int | None:
        begins = self._begins.pop(key[1], None)
        if begins is not None:
            self._alike[begins] -= 1
            if not self._alike[begins]:
                del self._alike[begins]
        return begins

    def _insert(self, key: Key, begins: int | None) -> None:
        """In its place, unless the read that saw it was faster than the news of it."""
        keys, run = self._keys, self._run
        if run and key <= run[-1] and key in run:
            return
        place = bisect_left(keys, key)
        if place == len(keys) or keys[place] != key:
            keys.insert(place, key)
            self._remember(key, begins)
