"""Who waits for what at the frontdoor: a register, without I/O.

A waiter is entered before the store is asked, so that an end between the two is never missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from actors.connection import Connection
from autoglm.wire import GetJobLines


class Question(msgspec.Struct, frozen=True):
    """What we asked for a client, and what to do with the answer."""

    connection: Connection | None
    """None: asked for all who wait."""
    rid: int
    then: Callable[[Any], None]


class Waiter:
    """A request that is answered when a task ends; `chunks`: it wants the text on the way too."""

    __slots__ = ("chunks", "connection", "rid")

    def __init__(self, connection: Connection, rid: int, *, chunks: bool) -> None:
        self.connection = connection
        self.rid = rid
        self.chunks = chunks


class JobWaiter:
    """A request for a job's ended lines, answered when there is one."""

    __slots__ = ("asking", "connection", "news", "request")

    def __init__(self, connection: Connection, request: GetJobLines) -> None:
        self.connection = connection
        self.request = request
        self.asking = False
        """The store is being asked."""
        self.news = False
        """Something ended after it was asked: an empty answer is out of date."""


class Waiting:
    def __init__(self) -> None:
        self._tasks: dict[str, list[Waiter]] = {}
        self._jobs: dict[str, list[JobWaiter]] = {}

    def add(self, task: str, waiter: Waiter) -> None:
        self._tasks.setdefault(task, []).append(waiter)

    def take(self, task: str) -> list[Waiter]:
        """Those who wait for `task`, removed."""
        return [each for each in self._tasks.pop(task, ()) if not each.connection.closed]

    def wanted(self, tasks: Iterable[str]) -> list[str]:
        """Of `tasks`, those that somebody waits for."""
        return [task for task in tasks if task in self._tasks]

    def readers(self, task: str) -> Iterator[Waiter]:
        """Those who want the chunks of `task`."""
        return (waiter for waiter in self._tasks.get(task, ()) if waiter.chunks)

    def tasks(self) -> list[str]:
        return list(self._tasks)

    def add_job(self, waiter: JobWaiter) -> None:
        self._jobs.setdefault(waiter.request.job, []).append(waiter)

    def job_waiters(self, job: str) -> list[JobWaiter]:
        return list(self._jobs.get(job, ()))

    def remove_job(self, waiter: JobWaiter) -> None:
        waiters = self._jobs.get(waiter.request.job, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._jobs.pop(waiter.request.job, None)

    def jobs(self) -> list[str]:
        return list(self._jobs)

    def drop(self, connection: Connection, rid: int) -> None:
        """Request `rid` of `connection` waits no longer, whatever for."""
        for task in connection.watching.pop(rid, ()):
            self._remove(task, connection, rid)
        for waiter in [each for waiters in self._jobs.values() for each in waiters]:
            if waiter.connection is connection and waiter.request.rid == rid:
                self.remove_job(waiter)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        for rid in list(connection.watching):
            self.drop(connection, rid)
        for waiter in [each for waiters in self._jobs.values() for each in waiters]:
            if waiter.connection is connection:
                self.remove_job(waiter)

    def _remove(self, task: str, connection: Connection, rid: int) -> None:
        kept = [w for w in self._tasks.get(task, ()) if (w.connection, w.rid) != (connection, rid)]
        if kept:
            self._tasks[task] = kept
        else:
            self._tasks.pop(task, None)

    def __repr__(self) -> str:
        return f"<Waiting {len(self._tasks)} tasks, {len(self._jobs)} jobs>"
