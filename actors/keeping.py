"""Checkpoints of running answers on their way into the store: one write at a time.

What comes while one is under way waits in the hosted engine, of each request only the newest; so
there is never more of it than requests run.
"""

from __future__ import annotations

from typing import Any

import msgspec

from actors.messages import Commit
from model.flight import Flight
from model.hosted import HostedEngine
from runtime.mailbox import Mailbox
from runtime.store.checkpointprotocol import Checkpoint, SaveCheckpoints
from runtime.store.protocol import ClaimedTask


class Saving(msgspec.Struct, frozen=True):
    """What the answer to a write of checkpoints belongs to."""


class Keeper:
    def __init__(
        self, engine: HostedEngine[ClaimedTask], mailbox: Mailbox[Any], persister: Mailbox[Commit]
    ) -> None:
        """`mailbox`: of the batcher, to which the answer comes."""
        self._engine = engine
        self._mailbox = mailbox
        self._persister = persister
        self._saving = False

    def saved(self) -> None:
        """The answer has come. If it was not saved, the next one will be."""
        self._saving = False

    async def save(self) -> None:
        if self._saving or not (kept := self._engine.take_kept()):
            return
        reply = self._mailbox.reserve(Saving())
        if reply is None:
            return  # the next ones will do
        self._saving = True
        checkpoints = tuple(found for flight in kept if (found := _checkpoint(flight)))
        await self._persister.put(Commit(SaveCheckpoints(checkpoints), reply))


def _checkpoint(flight: Flight[ClaimedTask]) -> Checkpoint | None:
    partial = flight.partial
    return partial and Checkpoint(flight.task.seq, flight.task.attempt, partial)
