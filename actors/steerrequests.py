"""What a client asks of queues, and to pause, resume, drain and requeue: turned into writes and
answered.
"""

from __future__ import annotations

import logging
from typing import assert_never

from actors.connection import Connection
from actors.desk import Desk, settle
from actors.policy.admission import check_count, stored
from actors.queues import Queues
from autoglm import wire
from autoglm.errors import InvalidRequest
from autoglm.service import TenantStatus
from autoglm.status import Status
from runtime.queueconfig import check_known
from runtime.store.queueprotocol import SteerQueue
from runtime.store.steering import SteerTasks

log = logging.getLogger("autoglm.queues")
Request = wire.Steer | wire.SteerQueue | wire.SetQueue | wire.ListQueues | wire.ListTenants


class SteerRequests:
    """A part of `Requests`. Raises InvalidRequest."""

    def __init__(self, desk: Desk, queues: Queues) -> None:
        self._desk = desk
        self._queues = queues

    def take(self, connection: Connection, request: Request) -> None:
        match request:
            case wire.Steer():
                self._steer(connection, request)
            case wire.SteerQueue():
                self._steer_queue(connection, request)
            case wire.SetQueue():
                self._set_queue(connection, request)
            case wire.ListQueues(rid):
                self._queues_are(connection, rid)
            case wire.ListTenants(rid):
                self._tenants_are(connection, rid)
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

    def _steer_queue(self, connection: Connection, request: wire.SteerQueue) -> None:
        if connection.tenant is not None:
            raise InvalidRequest("queues are for the operator to steer: connect without a tenant")
        check_known(request.name, self._queues.names)

        def then(_: None) -> None:
            now = self._queues.status(request.name)
            log.warning("queue %s: %s by %s", now.name, request.deed, connection.by)
            connection.reply(wire.QueuesReply(request.rid, (now,)))

        write = SteerQueue(request.name, request.deed, connection.by)
        self._desk.commit(connection, request.rid, write, then)

    def _set_queue(self, connection: Connection, request: wire.SetQueue) -> None:
        if connection.tenant is not None:
            raise InvalidRequest("queues are for the operator to set: connect without a tenant")
        write = self._queues.setting(request, connection.by)

        def then(_: None) -> None:
            now = self._queues.status(request.name)
            log.warning("queue %s: degrade %s, by %s", now.name, now.degrade, connection.by)
            connection.reply(wire.QueuesReply(request.rid, (now,)))

        self._desk.commit(connection, request.rid, write, then)

    def _queues_are(self, connection: Connection, rid: int) -> None:
        def then(status: Status) -> None:
            connection.reply(wire.QueuesReply(rid, status.queues))

        self._desk.ask_status(connection, rid, then)

    def _tenants_are(self, connection: Connection, rid: int) -> None:
        def then(tenants: tuple[TenantStatus, ...]) -> None:
            mine = connection.tenant
            seen = tuple(each for each in tenants if mine is None or each.name == mine)
            connection.reply(wire.TenantsReply(rid, seen))

        self._desk.ask_tenants(connection, rid, then)
