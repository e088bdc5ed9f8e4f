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

from actors.connection import Connection, let_in
from actors.messages import (
    Ask,
    Commit,
    FrontdoorMessage,
    GetStatus,
    Refused,
    TasksEnded,
    TextsArrived,
)
from actors.requests import Requests, unknown_task
from actors.waiting import JobWaiter, Waiter, Waiting
from autoglm import wire
from autoglm.errors import AutoGLMError, ServerBusy, ServerUnavailable
from autoglm.ids import Ids
from autoglm.types import Answer
from runtime.actor import Actor, Statistics
from runtime.alarm import Alarm
from runtime.clock import Clock
from runtime.mailbox import ActorDied, Answered, Mailbox, Reply, Signal
from runtime.store import protocol as p
from runtime.store.health import in_words

CAPACITY = 16_384
BUSY_RETRY_S = 0.1
UNAVAILABLE_RETRY_S = 0.5
LOOKUP_MAX = 512
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
        monitor: Mailbox[GetStatus],
        welcome: Callable[[int], wire.Welcome],
        refusing: Callable[[p.Write], AutoGLMError | None],
        ids: Ids,
        clock: Clock,
    ) -> None:
        super().__init__(mailbox)
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
        self._waiting = Waiting()
        self._requests = Requests(self, welcome, ids)

    async def run(self, started: Callable[[], None]) -> None:
        async with await self._listen() as listener, anyio.create_task_group() as group:
            group.start_soon(let_in, listener, self._on_connection, group, self._clock)
            await super().run(started)

    def handle(self, message: FrontdoorMessage) -> None:
        match message:
            case Answered(Question() as question, answer):
                self._on_answer(question, answer)
            case TasksEnded(endings, jobs):
                self._look_up(self._waiting.wanted(ending.id for ending in endings))
                for job in sorted(jobs):
                    self._on_job_news(job)
            case TextsArrived(pieces):
                for piece in pieces:
                    for waiter in self._waiting.readers(piece.id):
                        chunk = wire.Chunk(
                            waiter.rid, piece.id, piece.attempt, piece.offset, piece.text
                        )
                        waiter.connection.reply(chunk, last=False)
            case Answered():
                raise TypeError(f"an answer to nothing we asked: {message!r}")
            case _:
                assert_never(message)

    async def settle(self) -> None:
        if self._missed.take() or self._again.rang():
            if len(self.mailbox):
                self._look_again()  # who follows by an answer that is still in there
            self._look_up(self._waiting.tasks())
            for job in self._waiting.jobs():
                self._on_job_news(job)

    def statistics(self) -> FrontdoorStatistics:
        return FrontdoorStatistics(len(self._connections), len(self._waiting.tasks()))

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

    def ask_status(self, connection: Connection, rid: int, then: Callable[[Any], None]) -> None:
        self._put(self._monitor, GetStatus, connection, rid, then)

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
        self._refuse(connection, rid, busy)

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
            self._look_again()
        else:
            self._refuse(question.connection, question.rid, error)

    def _refuse(self, connection: Connection, rid: int, error: AutoGLMError) -> None:
        self._waiting.drop(connection, rid)
        connection.reply(wire.refusal(rid, error))

    # ── waiting ──────────────────────────────────────────────────────────────────────────────

    def wait_for(
        self,
        connection: Connection,
        rid: int,
        ids: tuple[str, ...],
        *,
        chunks: bool,
        look_up: tuple[str, ...],
    ) -> None:
        """Answer request `rid` once for each of `ids` when it has ended; `chunks`: also on the way.

        Those in `look_up` may have ended already, or not exist.
        """
        unproven = () if connection.tenant is None else look_up
        waiters = {id: Waiter(connection, rid, chunks=chunks and id not in unproven) for id in ids}
        for id, waiter in waiters.items():
            self._waiting.add(id, waiter)
        connection.watching[rid] = set(ids)

        def then(found: dict[str, Answer]) -> None:
            for id in look_up:
                answer = found.get(id)
                if answer is None:
                    self._refuse(connection, rid, unknown_task(id))
                elif answer.task.state.ended:
                    self._tell(answer)
                else:
                    waiters[id].chunks = chunks

        if look_up:
            self.ask(connection, rid, p.FetchAnswers(connection.tenant, look_up), then)

    def forget(self, connection: Connection, rid: int) -> None:
        """The client no longer waits for `rid`."""
        self._waiting.drop(connection, rid)
        connection.finished(rid)

    def wait_for_lines(self, connection: Connection, request: wire.GetJobLines) -> None:
        waiter = JobWaiter(connection, request)
        self._waiting.add_job(waiter)
        self._ask_lines(waiter)

    def _look_up(self, ids: list[str]) -> None:
        """Tell those who wait for these tasks how they ended."""
        for start in range(0, len(ids), LOOKUP_MAX):
            query = p.FetchAnswers(None, tuple(ids[start : start + LOOKUP_MAX]))
            reply = self.mailbox.reserve(Question(None, 0, self._tell_all))
            if reply is None or not self._reader.put_nowait(Ask(query, reply)):
                if reply is not None:
                    reply.drop()
                self._look_again()
                return

    def _look_again(self) -> None:
        self._again.no_later_than(self._clock.monotonic() + PATIENCE_S)

    def _tell_all(self, found: dict[str, Answer]) -> None:
        for answer in found.values():
            if answer.task.state.ended:
                self._tell(answer)

    def _tell(self, answer: Answer) -> None:
        id = answer.task.id
        for waiter in self._waiting.take(id):
            connection = waiter.connection
            if connection.tenant not in (None, answer.task.tenant):
                self._refuse(connection, waiter.rid, unknown_task(id))
                continue
            watched = connection.watching.get(waiter.rid, set())
            watched.discard(id)
            connection.reply(wire.AnswerReply(waiter.rid, answer), last=not watched)

    def _on_job_news(self, job: str) -> None:
        for waiter in self._waiting.job_waiters(job):
            waiter.news = True
            self._ask_lines(waiter)

    def _ask_lines(self, waiter: JobWaiter) -> None:
        if waiter.asking:
            return
        connection, request = waiter.connection, waiter.request
        waiter.asking, waiter.news = True, False

        def then(found: tuple[tuple[wire.JobLineEnded, ...], bool]) -> None:
            lines, done = found
            waiter.asking = False
            if lines or done:
                self._waiting.remove_job(waiter)
                connection.reply(wire.JobLines(request.rid, lines, done))
            elif waiter.news:
                self._ask_lines(waiter)

        query = p.FetchJobLines(
            connection.tenant, request.job, request.after, request.ordered, request.limit
        )
        self.ask(connection, request.rid, query, then)

    # ── connections ──────────────────────────────────────────────────────────────────────────

    async def _on_connection(self, stream: SocketStream) -> None:
        connection = Connection(stream, self._requests.take)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)
            self._waiting.forget(connection)
