"""What requests about dead letters mean. Part of the frontdoor, as `requests` is.

A tenant's connection reaches the letters of that tenant alone: another's are as if they did not
exist. Whoever retries, edits or discards is named in the event log.
"""

from __future__ import annotations

from typing import assert_never

from actors.connection import Connection
from actors.desk import Desk, settle
from actors.policy.admission import check_count, check_task, stored
from actors.telling import unknown_task
from autoglm import wire
from autoglm.deadletter import DeadLetterInFull
from autoglm.ids import ID_LENGTH
from autoglm.types import Answer, TaskSpec
from runtime.queueconfig import QUEUES
from runtime.store import deadprotocol as dead
from runtime.store import protocol as p

Request = wire.ListDead | wire.ShowDead | wire.SettleDead | wire.EditDead


class DeadRequests:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, connection: Connection, request: Request) -> None:
        """Start answering. Raises InvalidRequest."""
        match request:
            case wire.ListDead():
                self._list(connection, request)
            case wire.ShowDead(rid, id):

                def shown(letter: DeadLetterInFull) -> None:
                    connection.reply(wire.DeadReply(rid, letter))

                self._desk.ask(connection, rid, dead.FetchDeadLetter(connection.tenant, id), shown)
            case wire.SettleDead():
                self._settle(connection, request)
            case wire.EditDead():
                self._edit(connection, request)
            case _:
                assert_never(request)

    def _list(self, connection: Connection, request: wire.ListDead) -> None:
        limit = min(max(1, request.limit), wire.PAGE_MAX)
        before = None if request.before is None else stored(request.before)
        bounded = wire.ListDead(request.rid, request.tenant, request.reason, before, limit)
        self._desk.ask(
            connection,
            request.rid,
            dead.FetchDeadLetters(connection.tenant, bounded),
            lambda page: connection.reply(wire.DeadPage(request.rid, *page)),
        )

    def _settle(self, connection: Connection, request: wire.SettleDead) -> None:
        check_count("ids", len(request.ids))
        chosen = dead.Chosen(
            *(connection.tenant, request.ids, request.every, request.tenant, request.reason),
            after=stored(request.after),
        )
        kind = dead.DiscardDead if request.discard else dead.RetryDead
        settle(self._desk, connection, request.rid, kind(chosen, connection.by))

    def _edit(self, connection: Connection, request: wire.EditDead) -> None:
        rid, id, content = request.rid, request.id, request.content
        # As if it were handed in: what the door refuses there does not come in here.
        as_new = TaskSpec("0" * ID_LENGTH, content.messages, content.prompt, content.sampling)
        check_task(as_new, None, QUEUES)

        def then(_: None) -> None:
            def tell(found: dict[str, Answer]) -> None:
                answer = found.get(id)
                connection.reply(
                    wire.AnswerReply(rid, answer)
                    if answer is not None
                    else wire.refusal(rid, unknown_task(id))
                )

            self._desk.ask(connection, rid, p.FetchAnswers(connection.tenant, (id,)), tell)

        attempt = stored(request.attempt)
        write = dead.EditDead(connection.tenant, id, attempt, content, connection.by)
        self._desk.commit(connection, rid, write, then)
