"""What waiting clients are told: how a task ended, its text on the way, the lines of a job.

Part of the frontdoor. An ending comes with its answer when it was recorded a moment ago; all
others are looked up in the store, which knows them after any restart.
"""

from __future__ import annotations

from functools import partial

from actors.connection import Connection
from actors.desk import Desk
from actors.held import Held
from actors.waiting import JobWaiter, Waiter, Waiting
from autoglm import wire
from autoglm.errors import NotFound
from autoglm.types import Answer
from model.engine import Progress
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p

LOOKUP_MAX = 512


class Telling:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting = Waiting()
        self._held = Held()

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
                    self._desk.refuse(connection, rid, unknown_task(id))
                elif answer.task.state.ended:
                    self._tell(answer)
                else:
                    waiters[id].chunks = chunks
                    self._catch_up(waiters[id], id)

        if look_up:
            self._desk.ask(connection, rid, p.FetchAnswers(connection.tenant, look_up), then)

    def forget(self, connection: Connection, rid: int) -> None:
        """The client no longer waits for `rid`."""
        self._waiting.drop(connection, rid)
        connection.finished(rid)

    def wait_for_lines(self, connection: Connection, request: wire.GetJobLines) -> None:
        waiter = JobWaiter(connection, request)
        self._waiting.add_job(waiter)
        self._ask_lines(waiter)

    def ended(self, endings: tuple[p.Ending, ...], jobs: frozenset[str]) -> None:
        """These tasks have ended, and something may be told of these jobs."""
        unanswered: list[str] = []
        for ending in endings:
            self._held.drop(ending.id)
            if not self._waiting.wanted(ending.id):
                continue
            if ending.answer is None:
                unanswered.append(ending.id)
            else:
                self._tell(ending.answer)
        self._look_up(unanswered)
        for job in sorted(jobs):
            self._on_job_news(job)

    def texts(self, pieces: tuple[Progress, ...]) -> None:
        """Provisional pieces of running answers."""
        for piece in pieces:
            self._held.take(piece)
            for waiter in self._waiting.readers(piece.id):
                chunk = wire.Chunk(waiter.rid, piece.id, piece.attempt, piece.offset, piece.text)
                waiter.connection.reply(chunk, last=False)

    def _catch_up(self, waiter: Waiter, id: str) -> None:
        """Tell a reader that comes late what was written before."""
        if waiter.chunks and (held := self._held.of(id)) is not None:
            attempt, text = held
            chunk = wire.Chunk(waiter.rid, id, attempt, 0, text)
            waiter.connection.reply(chunk, last=False)

    def look_at_all(self) -> None:
        """News may have been missed: look up everything that somebody waits for."""
        self._look_up(self._waiting.tasks())
        for job in self._waiting.jobs():
            self._on_job_news(job)

    def drop(self, connection: Connection, rid: int) -> None:
        """Request `rid` waits no longer: it was answered, if only with an error."""
        self._waiting.drop(connection, rid)

    def gone(self, connection: Connection) -> None:
        self._waiting.forget(connection)

    @property
    def waiting_tasks(self) -> int:
        return len(self._waiting.tasks())

    def _look_up(self, ids: list[str]) -> None:
        """Tell those who wait for these tasks how they ended."""
        for start in range(0, len(ids), LOOKUP_MAX):
            query = p.FetchAnswers(None, tuple(ids[start : start + LOOKUP_MAX]))
            self._desk.ask_for_all(query, partial(self._tell_all, query.ids))

    def _tell_all(self, ids: tuple[str, ...], found: dict[str, Answer]) -> None:
        for id in ids:
            answer = found.get(id)
            if answer is None:  # it has ended and was removed since
                for waiter in self._waiting.take(id):
                    self._desk.refuse(waiter.connection, waiter.rid, unknown_task(id))
            elif answer.task.state.ended:
                self._tell(answer)

    def _tell(self, answer: Answer) -> None:
        id = answer.task.id
        for waiter in self._waiting.take(id):
            connection = waiter.connection
            if connection.tenant not in (None, answer.task.tenant):
                self._desk.refuse(connection, waiter.rid, unknown_task(id))
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

        query = jp.FetchJobLines(
            connection.tenant, request.job, request.after, request.ordered, request.limit
        )
        self._desk.ask(connection, request.rid, query, then)


def unknown_task(id: str) -> NotFound:
    return NotFound(f"no task {id}")
