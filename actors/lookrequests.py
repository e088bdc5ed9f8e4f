"""What requests that read in bulk, or find a task by a part of its id, mean. Part of `requests`."""

from __future__ import annotations

from typing import assert_never

import msgspec

from actors.connection import Connection
from actors.desk import Desk
from actors.policy.admission import stored
from autoglm import wire
from autoglm.errors import InvalidRequest
from autoglm.ids import ID_LENGTH
from runtime.store.exporting import FetchExport, FetchIds

Request = wire.ExportTasks | wire.FindIds


class LookRequests:
    """A part of `Requests`. Raises InvalidRequest."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, connection: Connection, request: Request) -> None:
        match request:
            case wire.ExportTasks():
                self._export(connection, request)
            case wire.FindIds(rid, part):
                if not 0 < len(part) < ID_LENGTH:
                    raise InvalidRequest(f"part: from 1 to {ID_LENGTH - 1} characters of an id")
                self._desk.ask(
                    connection,
                    rid,
                    FetchIds(connection.tenant, part),
                    lambda ids: connection.reply(wire.IdsReply(rid, ids)),
                )
            case _:
                assert_never(request)

    def _export(self, connection: Connection, request: wire.ExportTasks) -> None:
        bounded = msgspec.structs.replace(
            request,
            states=tuple(dict.fromkeys(request.states)),
            since=None if request.since is None else stored(request.since),
            after=stored(request.after),
            limit=min(max(1, request.limit), wire.PAGE_MAX),
        )
        self._desk.ask(
            connection,
            request.rid,
            FetchExport(connection.tenant, bounded),
            lambda page: connection.reply(wire.ExportPage(request.rid, *page)),
        )
