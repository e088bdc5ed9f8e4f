"""What a client asks to pause, resume and requeue: turned into writes and answered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, assert_never

from actors.connection import Connection
from actors.policy.admission import check_count, stored
from actors.queues import Queues
from autoglm import wire
from autoglm.errors import InvalidRequest
from autoglm.types import Answer
from runtime.queueconfig import check_known
from runtime.store import protocol as p
from runtime.store.queueprotocol import PauseQueue
from runtime.store.steering import SteerTasks

log = logging.getLogger("autoglm.queues")
Then = Callable[[Any], None]
Request = wire.Steer | wire.PauseQueue


class Desk(Protocol):
    def commit(self, connection: Connection, rid: int, write: p.Write, then: Then) -> None: ...
    def ask(self, connection: Connection, rid: int, query: p.Query, then: Then) -> None: ...


class SteerRequests:
    """A part of `Requests`. Raises InvalidRequest."""

    def __init__(self, desk: Desk, queues: Queues) -> None:
        self._desk = desk
        self._queues = queues

    def take(self, connection: Connection, request: Request) -> None:
        match request:
            case wire.Steer():
                self._steer(connection, request)
            case wire.PauseQueue():
                self._pause_queue(connection, request)
            case _:
                assert_never(request)

    def _steer(self, connection: Connection, request: wire.Steer) -> None:
        rid = request.rid
        check_count("ids", len(request.ids))
        if request.every and request.deed != "requeue":
            raise InvalidRequest(f"{request.deed}: give ids or a job")

        def then(done: p.Cancellation) -> None:
            def tell(found: dict[str, Answer]) -> None:
                tasks = tuple(found[id].task for id in done.known if id in found)
                connection.reply(wire.Cancelled(rid, tasks, done.unknown, done.count, done.next))

            self._desk.ask(connection, rid, p.FetchAnswers(connection.tenant, done.known), tell)

        write = SteerTasks(
            *(request.deed, connection.tenant, request.ids, request.job, request.every),
            after=stored(request.after),
            by=connection.by,
        )
        self._desk.commit(connection, rid, write, then)

    def _pause_queue(self, connection: Connection, request: wire.PauseQueue) -> None:
        if connection.tenant is not None:
            raise InvalidRequest("queues are for the operator to pause: connect without a tenant")
        check_known(request.name, self._queues.names)

        def then(_: None) -> None:
            now = self._queues.status(request.name)
            deed = "paused" if request.paused else "resumed"
            log.warning("queue %s: %s by %s", now.name, deed, connection.by)
            connection.reply(wire.QueuesReply(request.rid, (now,)))

        write = PauseQueue(request.name, request.paused, connection.by)
        self._desk.commit(connection, request.rid, write, then)
