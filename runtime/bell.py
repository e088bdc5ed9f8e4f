"""What wakes an actor: one bell for any number of mailboxes, signals and alarms."""

from __future__ import annotations

import asyncio


class Bell:
    """Wakes one reader for any number of mailboxes and signals."""

    __slots__ = ("_rung", "_waiter", "visits")

    def __init__(self) -> None:
        self.visits = 0
        """How often its reader was done with something; within a long turn it counts itself."""
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        self._rung = True
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def hush(self) -> None:
        """Forget earlier rings: the reader is about to look at everything anyway."""
        self.visits += 1
        self._rung = False

    async def wait_rung(self) -> None:
        """Until `ring` has been called since the last return or `hush`."""
        self.visits += 1
        if self._rung:
            await asyncio.sleep(0)  # a reader who rings for itself lets the others run
        while not self._rung:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        self._rung = False


class Signal:
    """One bit for an actor: set from anywhere, can't be lost and can't pile up."""

    __slots__ = ("_bell", "_set")

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._set = False

    def set(self) -> None:
        self._set = True
        self._bell.ring()

    def take(self) -> bool:
        """Whether it was set since the last call."""
        was, self._set = self._set, False
        return was
