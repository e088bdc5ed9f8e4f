"""When a task is likely to start and finish, as a client asks it."""

from __future__ import annotations

from autoglm import wire
from autoglm.errors import NotFound
from autoglm.eta import Eta
from autoglm.session import Session
from autoglm.spec import TaskRef, id_of
from autoglm.types import Answer


class EtaCalls:
    """A part of `Client`."""

    _session: Session

    async def eta(self, task: TaskRef) -> Eta | None:
        """An estimate for a task that is pending or runs; None for any other.

            eta = await client.eta(task)
            if eta is not None:
                print(eta.ahead, eta.finishes_in_s)

        Raises NotFound.
        """
        return (await self.look(task))[1]

    async def look(self, task: TaskRef) -> tuple[Answer, Eta | None]:
        """The task with its result, if it has one, and what `eta` says of it.

            answer, eta = await client.look(task)
            print(answer.task.state, eta)

        Raises NotFound.
        """
        id = id_of(task)
        reply = await self._session.call(wire.Get(0, id), wire.AnswerReply)
        if reply.answer is None:
            raise NotFound(f"no task {id}")
        return reply.answer, reply.eta
