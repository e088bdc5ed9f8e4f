"""The client: hand prompts to a server, get answers, whatever dies in between.

A task's id is minted here, so a submission whose reply was lost is simply repeated: the server
knows the id and stores nothing twice. That makes every call safe to repeat, and so each one is,
for a bounded time, when the server restarts under it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from autoglm import wire
from autoglm.askclient import AskCalls
from autoglm.deadletters import DeadLetters
from autoglm.drills import Drills
from autoglm.editclient import EditCalls
from autoglm.errors import NotFound, ProtocolError
from autoglm.etaclient import EtaCalls
from autoglm.ids import Ids
from autoglm.paths import places
from autoglm.pruneclient import PruneCalls
from autoglm.queueclient import QueueCalls
from autoglm.retry import PATIENCE, Patience, Retry
from autoglm.session import Session
from autoglm.spec import TaskRef, id_of
from autoglm.status import Status
from autoglm.steering import SteerCalls, in_parts
from autoglm.types import Event, Task, TaskState

EVENTS_POLL_S = 0.2


class Client(AskCalls, QueueCalls, EditCalls, EtaCalls, SteerCalls, PruneCalls):
    """One connection to a server, shared by any number of concurrent calls.

        async with Client() as client:
            task = await client.submit("Why is the sky blue?")
            print((await client.result(task)).text)

    `socket` is where the server listens: by default $AUTOGLM_SOCKET, or where `autoglm serve` does
    without it. Entering raises ServerNotRunning at once when nobody listens; later every call
    waits out a restart of the server for `patience`. With `tenant` None the client speaks for the
    operator and sees the tasks of all. `ids` mints task ids and tells the time for `deadline`.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        tenant: str | None = "default",
        *,
        patience: Patience = PATIENCE,
        ids: Ids | None = None,
        retry: Callable[[Patience], Retry] = Retry,
    ) -> None:
        path = Path(socket) if socket else places().socket
        self._session = Session(path, tenant, patience, retry)
        self._ids = ids or Ids()

    def __repr__(self) -> str:
        return f"<Client: {self._session!r}>"

    async def __aenter__(self) -> Self:
        await self._session.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.__aexit__(kind, error, traceback)

    @property
    def session(self) -> Session:
        """For what the wire can say and the client has no word for."""
        return self._session

    @property
    def dead(self) -> DeadLetters:
        """Dead letters: `list`, `show`, `retry`, `edit`, `discard`."""
        return DeadLetters(self._session)

    @property
    def drill(self) -> Drills:
        """`await client.drill("kill-engine")`: rehearse a failure. For the operator."""
        return Drills(self._session, self._ids)

    # ── looking and steering ──────────────────────────────────────────────────────────────────

    async def get(self, task: TaskRef) -> Task:
        """The task as it now stands.

            task = await client.get(task.id)
            print(task.state, task.attempt)

        Raises NotFound.
        """
        return (await self.answer(task)).task

    async def list(
        self,
        state: TaskState | str | None = None,
        tenant: str | None = None,
        job: str | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """Tasks, newest first; all of them unless `limit` says how many.

            for task in await client.list(state="running", limit=10):
                print(task.id, task.started_at)

        `state` may be an alias such as `failed`. Raises ValueError for one that does not exist.
        """
        return [task async for task in self.tasks(state, tenant, job, limit)]

    async def tasks(
        self,
        state: TaskState | str | None = None,
        tenant: str | None = None,
        job: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Task]:
        """Like `list`, page by page, so that memory stays flat.

            async for task in client.tasks(state="dead"):
                print(task.id, task.error)

        Raises what `list` raises.
        """
        states = () if state is None else (TaskState.parse(state),)
        cursor, left = None, limit
        while left is None or left > 0:
            size = wire.PAGE_MAX if left is None else min(left, wire.PAGE_MAX)
            message = wire.ListTasks(0, states, tenant, job, cursor, size)
            page = await self._session.call(message, wire.TaskPage)
            for task in page.tasks:
                yield task
            left = None if left is None else left - len(page.tasks)
            cursor = page.next
            if cursor is None:
                return

    async def cancel(self, task: TaskRef) -> Task:
        """End the task unless it has ended, and return it as it now stands.

            task = await client.submit("Tell me a story.", max_tokens=4096)
            print((await client.cancel(task)).state)

        One that runs is stopped in the engine, and its slot is free for others. Raises NotFound.
        """
        reply = await self.cancel_many([task])
        if reply.unknown:
            raise NotFound(f"no task {reply.unknown[0]}")
        return reply.tasks[0]

    async def cancel_many(self, tasks: Iterable[TaskRef]) -> wire.Cancelled:
        """End several tasks; ids that don't exist are in `unknown`.

            done = await client.cancel_many(await client.list(state="pending"))
            print(done.count, done.unknown)

        Up to 4,096 go in one transaction, more in several. Broken off, the same call ends the rest.
        """
        return await in_parts(
            "cancel_many",
            tasks,
            lambda ids: self._session.call(wire.Cancel(0, ids), wire.Cancelled),
        )

    async def cancel_job(self, job: str) -> int:
        """End all tasks of a job that have not ended; returns how many. Raises NotFound.

            async for task in client.tasks(state="pending"):
                if task.job:
                    await client.cancel_job(task.job)

        The server ends a slice at a time. Broken off, the same call ends the rest.
        """
        count, after = 0, 0
        while True:
            message = wire.Cancel(0, job=job, after=after)
            done = await self._session.call(message, wire.Cancelled)
            count += done.count
            if done.next is None:
                return count
            after = done.next

    async def status(self) -> Status:
        """What `autoglm status --json` shows.

            status = await client.status()
            print(status.tasks, [engine.tokens_per_s for engine in status.engines])

        Counts, engines, actors and queues, as of this moment.
        """
        reply = await self._session.call(wire.GetStatus(0), wire.StatusReply)
        if reply.status is None:
            raise ProtocolError("the server's status is empty")
        return reply.status

    async def events(
        self,
        task: TaskRef | None = None,
        *,
        after: int = 0,
        follow: bool = False,
    ) -> AsyncIterator[Event]:
        """The event log behind entry `after`, in order, of all tasks or of one.

            async for event in client.events(task):
                print(event.seq, event.from_state, event.to_state, event.attempt)

        With `follow` it never ends. Raises NotFound.
        """
        id = None if task is None else id_of(task)
        while True:
            page = await self._session.call(wire.GetEvents(0, after, id), wire.EventPage)
            for event in page.events:
                yield event
            after = page.next
            if not page.more and not follow:
                return
            if not page.more:
                await anyio.sleep(EVENTS_POLL_S)
