"""The frontdoor: the unix socket that clients talk to.

Owns the connections and who on them waits for what. Accepts frames from clients, and from inside
the answers to what it asked, `TasksEnded` from the persister and `TextsArrived` from the engines.
Emits `Commit` to the persister, `Ask` to the reader, `GetStatus` to the monitor, and replies.

It never waits for an actor: when a mailbox is full the client is told `busy`. Nothing is answered
before it is committed, because the answer is the persister's. When the frontdoor dies its clients
reconnect and repeat what was not answered, which is safe; when the core below it is restarted, the
waiting clients stay and are looked up again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, assert_never

import anyio
import msgspec
from anyio.abc import Listener, SocketStream

from actors import drills
from actors.connection import Connection, let_in
from actors.messages import (
    Ask,
    Commit,
    FrontdoorMessage,
    GetStatus,
    GetTenants,
    MonitorMessage,
    Refused,
    TasksEnded,
    TextsArrived,
)
from actors.policy.pace import Pace
from actors.policy.priority import PriorityRules
from actors.queues import Queues
from actors.requests import Requests
from actors.telling import Telling
from autoglm import wire
from autoglm.errors import AutoGLMError, ServerBusy, ServerUnavailable
from autoglm.ids import Ids
from runtime.actor import Actor, Statistics
from runtime.alarm import Alarm
from runtime.bell import Signal
from runtime.clock import Clock
from runtime.mailbox import ActorDied, Answered, Mailbox, Reply
from runtime.store import protocol as p
from runtime.store.health import in_words

CAPACITY = 16_384
BUSY_RETRY_S = 0.1
UNAVAILABLE_RETRY_S = 0.5
PATIENCE_S = 0.02  # how soon to look again where there was no room to ask

Listen = Callable[[], "Awaitable[Listener[SocketStream]]"]


class Question(msgspec.Struct, frozen=True):
    """What we asked for a client, and what to do with the answer."""

    connection: Connection | None
    """None: asked for all who wait."""
    rid: int
    then: Callable[[Any], None]


class FrontdoorStatistics(Statistics, frozen=True):
    connections: int
    waiting_tasks: int


class Frontdoor(Actor[FrontdoorMessage]):
    def __init__(
        self,
        mailbox: Mailbox[FrontdoorMessage],
        missed: Signal,
        listen: Listen,
        persister: Mailbox[Commit],
        reader: Mailbox[Ask],
        monitor: Mailbox[MonitorMessage],
        welcome: Callable[[int], wire.Welcome],
        refusing: Callable[[p.Write], AutoGLMError | None],
        ids: Ids,
        queues: Queues,
        rules: PriorityRules,
        pace: Pace,
        clock: Clock,
        drills: Mailbox[drills.DrillMessage] | None = None,
    ) -> None:
        """`drills`: None where they are not allowed."""
        super().__init__(mailbox)
        self._drills = drills
        self._missed = missed
        """Set when the persister had news for us and our mailbox was full."""
        self._listen = listen
        self._persister = persister
        self._reader = reader
        self._monitor = monitor
        self._refusing = refusing
        """Why a write is refused at the moment; None: it is not."""
        self._clock = clock
        self._again = Alarm(clock, Signal(mailbox.bell))
        self.alarms.append(self._again)
        self._connections: set[Connection] = set()
        self._telling = Telling(self)
        self.requests = Requests(self, self._telling, welcome, ids, queues, rules, pace)

    async def run(self, started: Callable[[], None]) -> None:
        async with await self._listen() as listener, anyio.create_task_group() as group:
            group.start_soon(let_in, listener, self._on_connection, group, self._clock)
            await super().run(started)

    def handle(self, message: FrontdoorMessage) -> None:
        match message:
            case Answered(Question() as question, answer):
                self._on_answer(question, answer)
            case TasksEnded(endings, jobs):
                self._telling.ended(endings, jobs)
            case TextsArrived(pieces):
                self._telling.texts(pieces)
            case Answered():
                raise TypeError(f"an answer to nothing we asked: {message!r}")
            case _:
                assert_never(message)

    async def settle(self) -> None:
        if self._missed.take() or self._again.rang():
            if len(self.mailbox):
                self._look_again()  # who follows by an answer that is still in there
            self._telling.look_at_all()

    def statistics(self) -> FrontdoorStatistics:
        return FrontdoorStatistics(len(self._connections), self._telling.waiting_tasks)

    # ── asking on behalf of a client ─────────────────────────────────────────────────────────

    def commit(
        self, connection: Connection, rid: int, write: p.Write, then: Callable[[Any], None]
    ) -> None:
        refusal = self._refusing(write)
        if refusal is not None:
            connection.reply(wire.refusal(rid, refusal))
            return
        self._put(self._persister, lambda reply: Commit(write, reply), connection, rid, then)

    def ask(
        self, connection: Connection, rid: int, query: p.Query, then: Callable[[Any], None]
    ) -> None:
        self._put(self._reader, lambda reply: Ask(query, reply), connection, rid, then)

    def ask_for_all(self, query: p.Query, then: Callable[[Any], None]) -> None:
        """Ask on behalf of all who wait. Where there is no room, all are looked at again later."""
        reply = self.mailbox.reserve(Question(None, 0, then))
        if reply is None or not self._reader.put_nowait(Ask(query, reply)):
            if reply is not None:
                reply.drop()
            self._look_again()

    def ask_status(self, connection: Connection, rid: int, then: Callable[[Any], None]) -> None:
        self._put(self._monitor, GetStatus, connection, rid, then)

    def ask_tenants(self, connection: Connection, rid: int, then: Callable[[Any], None]) -> None:
        self._put(self._monitor, GetTenants, connection, rid, then)

    def ask_drills(
        self,
        connection: Connection,
        rid: int,
        message: Callable[[Reply], drills.DrillMessage],
        then: Callable[[Any], None],
    ) -> None:
        assert self._drills is not None, "drills are not allowed"
        self._put(self._drills, message, connection, rid, then)

    @property
    def drills_allowed(self) -> bool:
        return self._drills is not None

    def _put(
        self,
        mailbox: Mailbox[Any],
        message: Callable[[Reply], object],
        connection: Connection,
        rid: int,
        then: Callable[[Any], None],
    ) -> None:
        reply = self.mailbox.reserve(Question(connection, rid, then))
        if reply is not None and mailbox.put_nowait(message(reply)):
            return
        if reply is not None:
            reply.drop()
        busy = ServerBusy("the server is busy; try again shortly", retry_after=BUSY_RETRY_S)
        self.refuse(connection, rid, busy)

    def _on_answer(self, question: Question, answer: object) -> None:
        if isinstance(answer, ActorDied):
            error = ServerUnavailable(
                "interrupted: whether it took effect is unknown, repeating it is safe",
                retry_after=UNAVAILABLE_RETRY_S,
            )
        elif isinstance(answer, Refused):
            error = answer.error
            if not isinstance(error, AutoGLMError):
                error = in_words(error)
        else:
            question.then(answer)
            return
        if question.connection is None:
            self._again.no_later_than(self._clock.monotonic() + UNAVAILABLE_RETRY_S)
        else:
            self.refuse(question.connection, question.rid, error)

    def refuse(self, connection: Connection, rid: int, error: AutoGLMError) -> None:
        """Request `rid` can't be answered."""
        self._telling.drop(connection, rid)
        if rid in connection.pending:  # it may have been refused for another of its tasks
            connection.reply(wire.refusal(rid, error))

    def _look_again(self) -> None:
        self._again.no_later_than(self._clock.monotonic() + PATIENCE_S)

    # ── connections ──────────────────────────────────────────────────────────────────────────

    async def _on_connection(self, stream: SocketStream) -> None:
        connection = Connection(stream, self.requests.take)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            self._telling.gone(connection)
            if self._drills is not None:
                self._drills.put_nowait(drills.ConnectionGone(connection))
