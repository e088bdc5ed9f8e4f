"""When a task is likely to start and finish, as a client asks it."""

from __future__ import annotations

from autoglm import wire
from autoglm.errors import NotFound
from autoglm.eta import Eta
from autoglm.session import Session
from autoglm.types import Answer


class EtaCalls:
    """A part of `Client`."""

    _session: Session

    async def eta(self, id: str) -> Eta | None:
        """An estimate for a task that is pending or runs; None for any other. Raises NotFound."""
        return (await self.look(id))[1]

    async def look(self, id: str) -> tuple[Answer, Eta | None]:
        """The task with its result, if it has one, and what `eta` says of it. Raises NotFound."""
        reply = await self._session.call(wire.Get(0, id), wire.AnswerReply)
        if reply.answer is None:
            raise NotFound(f"no task {id}")
        return reply.answer, reply.eta
