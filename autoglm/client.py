"""The client: hand prompts to a server, get answers, whatever dies in between.

A task's id is minted here, so a submission whose reply was lost is simply repeated: the server
knows the id and stores nothing twice. That makes every call safe to repeat, and so each one is,
for a bounded time, when the server restarts under it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, Unpack, overload

import anyio

from autoglm import wire
from autoglm.deadletters import DeadLetters
from autoglm.drills import Drills
from autoglm.editclient import EditCalls
from autoglm.errors import AutoGLMError, NotFound, ProtocolError
from autoglm.etaclient import EtaCalls
from autoglm.graphclient import GraphCalls
from autoglm.ids import Ids
from autoglm.mapping import Mapping
from autoglm.outcomes import accepted_task, result_of
from autoglm.paths import places
from autoglm.queueclient import QueueCalls
from autoglm.retry import PATIENCE, Patience, Retry
from autoglm.session import Session
from autoglm.spec import Prompt, TaskOptions
from autoglm.status import Status
from autoglm.steering import SteerCalls
from autoglm.streaming import Chunk, chunks
from autoglm.types import Answer, Event, Result, Task, TaskState

EVENTS_POLL_S = 0.2


class Client(QueueCalls, GraphCalls, EditCalls, EtaCalls, SteerCalls):
    """One connection to a server, shared by any number of concurrent calls.

        async with Client() as client:
            task = await client.submit("Why is the sky blue?")
            print((await client.result(task.id)).text)

    Entering raises ServerNotRunning at once when nobody listens; later every call waits out a
    restart of the server for `patience`. With `tenant` None the client speaks for the operator
    and sees the tasks of all. `ids` mints task ids and tells the time for `deadline`.
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

    # ── handing in ────────────────────────────────────────────────────────────────────────────

    async def submit(self, prompt: Prompt, **options: Unpack[TaskOptions]) -> Task:
        """Hand in one task (a text, or messages); it is durable when this returns.

        Raises InvalidRequest, Conflict (the key is taken by other content), ServerBusy,
        ServerUnavailable, and EngineUnavailable at once where the queue says so.
        """
        spec = self.spec(prompt, **options)
        reply = await self._session.call(wire.Submit(0, (spec,)), wire.Submitted)
        return accepted_task(reply.tasks[0])

    async def result(self, id: str, timeout: float | None = None) -> Result:
        """The answer of task `id`, when there is one; waits at most `timeout` seconds.

        Raises TimeoutError, NotFound, and TaskDead, TaskCancelled or TaskExpired when the task
        ended without an answer.
        """
        with anyio.fail_after(timeout):
            return result_of(await self.answer(id, wait=True))

    async def stream(self, prompt: Prompt, **options: Unpack[TaskOptions]) -> AsyncIterator[Chunk]:
        """Hand in one task and yield its answer as it is written.

        When an attempt breaks off, the next one's text is compared with what was yielded and
        only what is new is yielded; if it differs, one chunk with `reset` starts over. Raises as
        `submit` and `result` do.
        """
        options["stream"] = True
        spec = self.spec(prompt, **options)
        async for chunk in chunks(self._session, wire.Submit(0, (spec,), follow=True)):
            yield chunk

    async def follow(self, id: str) -> AsyncIterator[Chunk]:
        """Like `stream`, for a task there is; one submitted without `stream` comes as a whole."""
        async for chunk in chunks(self._session, wire.Follow(0, id)):
            yield chunk

    @overload
    def map(
        self,
        prompts: Iterable[Prompt] | AsyncIterable[Prompt],
        *,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[False] = False,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Result]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt] | AsyncIterable[Prompt],
        *,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[True],
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Result | AutoGLMError]: ...

    async def map(
        self,
        prompts: Iterable[Prompt] | AsyncIterable[Prompt],
        *,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: bool = False,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Result | AutoGLMError]:
        """Hand in every prompt with the same options and yield the answers.

        They come in the order of the prompts, or as they end with `ordered` False. `prompts` is
        drawn from as answers are taken: at most `in_flight` are out or wait to be taken, so that
        memory stays flat however many there are. A prompt that is refused or ends without an
        answer raises its error in its place; with `return_errors` the error is yielded and the
        rest goes on. A server that is full is waited for.
        """
        mapping = Mapping(
            self._session,
            lambda prompt: self.spec(prompt, **options),
            ordered=ordered,
            in_flight=in_flight,
        )
        self._session.tasks.start_soon(mapping.run, prompts)
        try:
            while (outcome := await mapping.take()) is not None:
                if isinstance(outcome, AutoGLMError) and not return_errors:
                    raise outcome
                yield outcome
        finally:
            mapping.cancel()

    # ── looking and steering ──────────────────────────────────────────────────────────────────

    async def get(self, id: str) -> Task:
        """The task as it stands. Raises NotFound."""
        return (await self.answer(id)).task

    async def answer(self, id: str, *, wait: bool = False) -> Answer:
        """The task with its result, if it has one; with `wait`, once it has ended.

        Raises NotFound.
        """
        reply = await self._session.call(wire.Get(0, id, wait), wire.AnswerReply)
        if reply.answer is None:
            raise NotFound(f"no task {id}")
        return reply.answer

    async def list(
        self,
        state: TaskState | str | None = None,
        tenant: str | None = None,
        job: str | None = None,
        limit: int | None = None,
    ) -> list[Task]:
        """Tasks, newest first; all of them unless `limit` says how many."""
        return [task async for task in self.tasks(state, tenant, job, limit)]

    async def tasks(
        self,
        state: TaskState | str | None = None,
        tenant: str | None = None,
        job: str | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Task]:
        """Like `list`, page by page. `state` may be an alias such as `failed`; raises ValueError
        for one that does not exist.
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

    async def cancel(self, id: str) -> Task:
        """End the task unless it has ended, and return it as it now stands. Raises NotFound."""
        reply = await self.cancel_many([id])
        if reply.unknown:
            raise NotFound(f"no task {id}")
        return reply.tasks[0]

    async def cancel_many(self, ids: Iterable[str]) -> wire.Cancelled:
        """End several tasks in one transaction; ids that don't exist are in `unknown`."""
        return await self._session.call(wire.Cancel(0, tuple(ids)), wire.Cancelled)

    async def cancel_job(self, job: str) -> int:
        """End all tasks of a job that have not ended; returns how many. Raises NotFound.

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
        """What `autoglm status --json` shows."""
        reply = await self._session.call(wire.GetStatus(0), wire.StatusReply)
        if reply.status is None:
            raise ProtocolError("the server's status is empty")
        return reply.status

    async def events(
        self,
        task: str | None = None,
        *,
        after: int = 0,
        follow: bool = False,
    ) -> AsyncIterator[Event]:
        """The event log behind entry `after`, in order; with `follow` it never ends."""
        while True:
            page = await self._session.call(wire.GetEvents(0, after, task), wire.EventPage)
            for event in page.events:
                yield event
            after = page.next
            if not page.more and not follow:
                return
            if not page.more:
                await anyio.sleep(EVENTS_POLL_S)
