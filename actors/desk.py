"""The desk: what the frontdoor does for those who answer requests.

Each call leads to a reply sooner or later, or to a refusal. Part of the frontdoor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from actors.connection import Connection
from actors.drills import DrillMessage
from autoglm import wire
from autoglm.errors import AutoGLMError
from autoglm.types import Answer
from runtime.mailbox import Reply
from runtime.store import protocol as p

Then = Callable[[Any], None]
"""Called with the result, if it is no refusal."""


class Desk(Protocol):
    def commit(self, connection: Connection, rid: int, write: p.Write, then: Then) -> None: ...
    def ask(self, connection: Connection, rid: int, query: p.Query, then: Then) -> None: ...
    def ask_for_all(self, query: p.Query, then: Then) -> None:
        """For all who wait, not for one client."""
        ...

    def ask_status(self, connection: Connection, rid: int, then: Then) -> None: ...
    def ask_tenants(self, connection: Connection, rid: int, then: Then) -> None: ...
    def refuse(self, connection: Connection, rid: int, error: AutoGLMError) -> None: ...
    @property
    def drills_allowed(self) -> bool: ...
    def ask_drills(
        self,
        connection: Connection,
        rid: int,
        message: Callable[[Reply], DrillMessage],
        then: Then,
    ) -> None: ...


def settle(desk: Desk, connection: Connection, rid: int, write: p.Write) -> None:
    """Carry out a write whose result is `Settled`, and reply with the tasks as they are then."""

    def then(done: p.Settled) -> None:
        def tell(found: dict[str, Answer]) -> None:
            tasks = tuple(found[id].task for id in done.known if id in found)
            connection.reply(wire.Cancelled(rid, tasks, done.unknown, done.count, done.next))

        desk.ask(connection, rid, p.FetchAnswers(connection.tenant, done.known), tell)

    desk.commit(connection, rid, write, then)
