"""What a client asks to pause, resume and requeue: turned into writes and answered."""

from __future__ import annotations

import logging
from typing import assert_never

from actors.connection import Connection
from actors.desk import Desk, settle
from actors.policy.admission import check_count, stored
from actors.queues import Queues
from autoglm import wire
from autoglm.errors import InvalidRequest
from runtime.queueconfig import check_known
from runtime.store.queueprotocol import PauseQueue
from runtime.store.steering import SteerTasks

log = logging.getLogger("autoglm.queues")
Request = wire.Steer | wire.PauseQueue


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
        check_count("ids", len(request.ids))
        if request.every and request.deed != "requeue":
            raise InvalidRequest(f"{request.deed}: give ids or a job")

        write = SteerTasks(
            *(request.deed, connection.tenant, request.ids, request.job, request.every),
            after=stored(request.after),
            by=connection.by,
        )
        settle(self._desk, connection, request.rid, write)

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
