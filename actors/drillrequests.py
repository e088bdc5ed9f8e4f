"""What requests about failure drills mean. Part of the frontdoor, as `requests` is.

They are for the operator of a server whose configuration says `drills: true`.
"""

from __future__ import annotations

from typing import assert_never

from actors.connection import Connection
from actors.desk import Desk
from actors.drills import Begin, Look
from actors.policy.admission import stored
from autoglm import wire
from autoglm.drill import Census, Drill
from autoglm.errors import NotAllowed
from runtime.store.census import TakeCensus

Request = wire.BeginDrill | wire.GetDrill | wire.TakeCensus


class DrillRequests:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, connection: Connection, request: Request) -> None:
        """Start answering. Raises NotAllowed, InvalidRequest."""
        if not self._desk.drills_allowed:
            raise NotAllowed(
                "this server allows no drills; to allow them: autoglm serve --set drills=true"
            )
        if connection.tenant is not None:
            raise NotAllowed("drills are for the operator: connect without a tenant")
        rid = request.rid

        def told(drill: Drill) -> None:
            connection.reply(wire.DrillReply(rid, drill))

        def counted(census: Census) -> None:
            connection.reply(wire.CensusReply(rid, census))

        match request:
            case wire.BeginDrill(_, id, plan):
                by = connection.by or "somebody"
                self._desk.ask_drills(
                    connection, rid, lambda reply: Begin(id, plan, connection, by, reply), told
                )
            case wire.GetDrill(_, id, end):
                self._desk.ask_drills(connection, rid, lambda reply: Look(id, end, reply), told)
            case wire.TakeCensus(_, tasks, events, answered_from, after):
                numbers = map(stored, (tasks, events, answered_from, after))
                self._desk.ask(connection, rid, TakeCensus(*numbers), counted)
            case _:
                assert_never(request)
