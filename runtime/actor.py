"""The actor: a mailbox, one handler, and nothing shared.

An actor decides in `handle`, which is synchronous, and acts in `settle`, which may await. So no
`await` can ever stand between reading and changing the state of a decision. The loop is:

    drain a batch ─▶ handle each message (decide) ─▶ settle once (act) ─▶ drain …

When it raises, the supervisor throws the instance away and starts a new one on the same mailbox:
the message being handled is dropped and its asker told, the others are handled by the successor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import anyio
import msgspec

from runtime.alarm import Alarm
from runtime.mailbox import Mailbox

M = TypeVar("M")
BATCH_MAX = 1024


class Statistics(msgspec.Struct, frozen=True):
    """Base of what `statistics()` returns: an immutable picture of one moment."""


class Child(Protocol):
    """Anything a supervisor can run."""

    async def run(self, started: Callable[[], None]) -> None:
        """Work until cancelled. Call `started` once, when ready. Returning is a failure."""
        ...

    def statistics(self) -> Statistics: ...


class Actor(Generic[M]):
    """Base of the actors that drain one mailbox."""

    def __init__(self, mailbox: Mailbox[M]) -> None:
        self.mailbox = mailbox
        self.alarms: list[Alarm] = []
        """They run as long as the actor does."""

    async def on_start(self) -> None:
        """Get ready; the mailbox is read only afterwards."""

    async def on_stop(self) -> None:
        """Let go of what is held. Runs after a crash and at cancellation alike."""

    def handle(self, message: M) -> None:
        """Decide what `message` changes."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Do the I/O that the decisions ask for. Runs after each batch, and after each signal."""

    def statistics(self) -> Statistics:
        return Statistics()

    async def run(self, started: Callable[[], None]) -> None:
        try:
            async with anyio.create_task_group() as group:
                for alarm in self.alarms:
                    group.start_soon(alarm.run)
                await self.on_start()
                started()
                await self.settle()
                await self._work()
        finally:
            await self.on_stop()

    async def _work(self) -> None:
        mailbox, handle = self.mailbox, self.handle
        while True:
            for message in await mailbox.drain(BATCH_MAX):
                mailbox.taken()
                handle(message)
            mailbox.done()
            await self.settle()
