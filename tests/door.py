"""The server's door in one thread: the real frames, requests and frontdoor, on a store in memory.

Bytes go in, replies come out; the persister and the reader answer at once. For whoever wants to
send it a million things.
"""

from __future__ import annotations

import logging
import random
import sqlite3
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import msgspec

from actors.connection import Connection
from actors.frontdoor import Frontdoor
from actors.messages import Ask, Commit, GetTenants, MonitorMessage, Refused, TasksEnded
from actors.policy.pace import Pace
from actors.policy.priority import PriorityRules
from actors.policy.rank import ranker
from actors.queues import Queues
from actors.requests import Requests
from autoglm import wire
from autoglm.errors import AutoGLMError, ProtocolError
from autoglm.ids import Ids
from autoglm.status import BatchStatus, ServerStatus, Status
from runtime.bell import Bell, Signal
from runtime.config import Config
from runtime.mailbox import Mailbox
from runtime.queueconfig import with_built_in
from runtime.store.jobprotocol import OpenJob
from runtime.store.protocol import StoreError, Write
from runtime.store.transact import answer, transact
from runtime.store.transaction import Counters

NOW_MS = 1_700_000_000_000
WAITING = (wire.Get, wire.Follow, wire.Submit, wire.GetJobLines)
"""Requests that may be under way for as long as something has not ended."""
_ENDING_CONNECTION = 0
_ranking = ranker("priority")


class _StillClock:
    def monotonic(self) -> float:
        return 0.0

    def wall_ms(self) -> int:
        return NOW_MS

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


class Heard(Connection):
    """A connection whose replies are kept as messages too."""

    def __init__(self, requests: Requests) -> None:
        super().__init__(None, self._note)  # pyright: ignore[reportArgumentType] - no socket
        self.heard: list[wire.Reply] = []
        self.taken: dict[int, wire.Request] = {}
        """By `rid`, the last request that was taken."""
        self._requests = requests

    def reply(self, message: wire.Reply, *, last: bool = True) -> None:
        super().reply(message, last=last)
        self.heard.append(message)

    def _note(self, connection: Connection, request: wire.Request) -> None:
        self.taken[request.rid] = request
        self._requests.take(connection, request)


class Visit(msgspec.Struct, frozen=True):
    """What one client got: replies, and why its connection ended, if it did."""

    replies: list[wire.Reply]
    ended: str | None
    unanswered: tuple[wire.Request, ...]
    """Requests that should have been answered at once and were not."""


class Door:
    """It knows one job, called "job", of the tenant "default"."""

    def __init__(self) -> None:
        logging.getLogger("autoglm").setLevel(logging.CRITICAL + 1)
        self.broken: list[str] = []
        """Writes and queries that failed for no reason that a client may be told."""
        self._cx = sqlite3.connect(":memory:", isolation_level=None)
        self._cx.executescript(files("runtime.store").joinpath("schema.sql").read_text())
        self._counters = Counters(self._cx)
        first = OpenJob("job", "default", "/job", "input", "options", fresh=False)
        transact(self._cx, self._counters, [first], NOW_MS, _ranking)
        self._ids = Ids(lambda: NOW_MS, random.Random(0).getrandbits)

    def visit(self, pieces: Iterable[bytes]) -> Visit:
        """One client sends these pieces. Raises whatever the server would not have expected."""
        box: Mailbox[Any] = Mailbox(64)
        persister: Mailbox[Commit] = Mailbox(16)
        reader: Mailbox[Ask] = Mailbox(16)
        monitor: Mailbox[MonitorMessage] = Mailbox(16)
        clock = _StillClock()
        frontdoor = Frontdoor(
            *(box, Signal(Bell()), _nobody, persister, reader, monitor, _welcome),
            *(_taken, self._ids, Queues(with_built_in({}), "none", (), clock)),
            *(PriorityRules(Config()), Pace(), clock),
        )
        connection = Heard(frontdoor.requests)
        ended = None
        for piece in pieces:
            try:
                connection.take(piece)
            except ProtocolError as error:
                connection.reply(wire.refusal(_ENDING_CONNECTION, error))
                ended = str(error)
            while len(persister) + len(reader) + len(monitor) + len(box):
                self._work(box, persister, reader, monitor)
                for message in box.drain_nowait():
                    frontdoor.handle(message)
                for mailbox in (box, persister, reader, monitor):
                    mailbox.done()
            if ended is not None:
                break
        pending = [connection.taken[rid] for rid in connection.pending if rid in connection.taken]
        unanswered = tuple(request for request in pending if not isinstance(request, WAITING))
        return Visit(connection.heard, ended, unanswered)

    def close(self) -> None:
        self._cx.close()

    def _work(
        self,
        box: Mailbox[Any],
        persister: Mailbox[Commit],
        reader: Mailbox[Ask],
        monitor: Mailbox[MonitorMessage],
    ) -> None:
        for message in persister.drain_nowait():
            done = transact(self._cx, self._counters, [message.write], NOW_MS, _ranking)
            (result,) = done.results
            if isinstance(result, StoreError):
                self.broken.append(f"{message.write}: {result}")
            if message.reply is not None:
                failed = isinstance(result, AutoGLMError | StoreError)
                message.reply.send(Refused(result) if failed else result)
            if done.effects.endings or done.effects.jobs:
                ends = TasksEnded(tuple(done.effects.endings), frozenset(done.effects.jobs))
                box.put_nowait(ends)
        for question in reader.drain_nowait():
            try:
                found = answer(self._cx, question.query)
            except AutoGLMError as error:
                found = Refused(error)
            question.reply.send(found)
        for status in monitor.drain_nowait():
            status.reply.send(() if isinstance(status, GetTenants) else _NO_STATUS)


_SERVER = ServerStatus("0", 0, 0, "running", "none", "none", "")
_NO_STATUS = Status(_SERVER, {}, (), (), BatchStatus())


def _taken(_: Write) -> AutoGLMError | None:
    """No write is refused as such."""


async def _nobody() -> Any:
    raise AssertionError("there is no socket")


def _welcome(rid: int) -> wire.Welcome:
    return wire.Welcome(rid, "0", engine="none", model="none")
