"""The client's hand on dead letters: look, retry, edit, discard."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from autoglm import wire
from autoglm.deadletter import Content, DeadLetter, DeadLetterInFull
from autoglm.errors import Conflict, InvalidRequest, NotFound, ProtocolError
from autoglm.prompts import Prompt, messages_of
from autoglm.session import Session
from autoglm.spec import check, size_bytes
from autoglm.types import Sampling, Task, TaskSpec, TaskState

Report = Callable[[int], None]


class DeadLetters:
    """Dead letters within the client's reach: its tenant's, or everybody's for the operator.

        for letter in await client.dead.list(reason="engine_error"):
            await client.dead.retry(letter.message_id)

    Who retries, edits or discards is named in the event log. Every call raises what the server
    refuses it with, as those of the client do.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(
        self, tenant: str | None = None, reason: str | None = None, limit: int | None = None
    ) -> list[DeadLetter]:
        """Newest first; all of them unless `limit` says how many.

            for letter in await client.dead.list(reason="timeout", limit=10):
                print(letter.message_id, letter.error)

        `reason` is an error's code.
        """
        return [letter async for letter in self.letters(tenant, reason, limit)]

    async def letters(
        self, tenant: str | None = None, reason: str | None = None, limit: int | None = None
    ) -> AsyncIterator[DeadLetter]:
        """Like `list`, page by page.

            async for letter in client.dead.letters():
                print(letter.text)

        Memory stays flat.
        """
        cursor, left = None, math.inf if limit is None else limit
        while left > 0:
            size = int(min(left, wire.PAGE_MAX))
            message = wire.ListDead(0, tenant, reason, cursor, size)
            page = await self._session.call(message, wire.DeadPage)
            for letter in page.letters:
                yield letter
            left -= len(page.letters)
            cursor = page.next
            if cursor is None:
                return

    async def show(self, id: str) -> DeadLetterInFull:
        """One in full: what it asks for, and the error of every attempt.

            for letter in await client.dead.list():
                print((await client.dead.show(letter.message_id)).errors)

        Raises NotFound, and Conflict when the task is not dead.
        """
        reply = await self._session.call(wire.ShowDead(0, id), wire.DeadReply)
        if reply.letter is None:
            raise ProtocolError("the server's reply holds no dead letter")
        return reply.letter

    async def retry(self, id: str) -> Task:
        """Put it back into the queue, its failures counted anew; the task as it now stands.

            for letter in await client.dead.list(reason="timeout"):
                await client.dead.retry(letter.message_id)

        A task that is under way or has succeeded stays as it is. Raises NotFound, and Conflict
        when it was cancelled or has expired.
        """
        return await self._settle_one(id, discard=False)

    async def discard(self, id: str) -> Task:
        """Give it up: it ends as cancelled.

            for letter in await client.dead.list(reason="invalid_request"):
                await client.dead.discard(letter.message_id)

        Raises NotFound, and Conflict when it is not dead.
        """
        return await self._settle_one(id, discard=True)

    async def retry_all(
        self,
        tenant: str | None = None,
        reason: str | None = None,
        report: Report = lambda _: None,
    ) -> int:
        """Retry all that fit; returns how many. The server goes a slice at a time, and `report`
        hears after each how many it has been; broken off, the same call goes on.
        """
        return await self._settle_all(tenant, reason, report, discard=False)

    async def discard_all(
        self,
        tenant: str | None = None,
        reason: str | None = None,
        report: Report = lambda _: None,
    ) -> int:
        """Like `retry_all`, to give them up."""
        return await self._settle_all(tenant, reason, report, discard=True)

    async def edit(self, id: str, prompt: Prompt | None = None, **sampling: Any) -> Task:
        """Give it another prompt (a text takes the place of the last user message; messages that of
        all) or other settings of `Sampling`, None for the model's own, and retry it.

        The key stays, and handing in the original content once more is still the same task.
        Raises NotFound, InvalidRequest for what no task may be, and Conflict when it is not dead
        or somebody else was faster.
        """
        letter = await self.show(id)
        return await self.replace(letter, edited(letter.content, prompt, sampling))

    async def replace(self, letter: DeadLetterInFull, content: Content) -> Task:
        """Retry `letter` with `content` in the place of its own. Raises as `edit` does."""
        spec = TaskSpec("", content.messages, content.prompt, content.sampling)
        check(spec)
        size_bytes(spec)
        message = wire.EditDead(0, letter.message_id, letter.attempt, content)
        reply = await self._session.call(message, wire.AnswerReply)
        if reply.answer is None:
            raise NotFound(f"no task {letter.message_id}")
        return reply.answer.task

    async def settle(self, ids: tuple[str, ...], *, discard: bool) -> wire.Cancelled:
        """Retry or discard several in one transaction; ids that don't exist are in `unknown`."""
        return await self._session.call(wire.SettleDead(0, discard, ids), wire.Cancelled)

    async def _settle_one(self, id: str, *, discard: bool) -> Task:
        reply = await self.settle((id,), discard=discard)
        if reply.unknown:
            raise NotFound(f"no task {id}")
        [task] = reply.tasks
        if not as_asked(task, discard=discard):
            raise Conflict(f"task {id} is {task.state.value}, no dead letter")
        return task

    async def _settle_all(
        self, tenant: str | None, reason: str | None, report: Report, *, discard: bool
    ) -> int:
        count, after = 0, 0
        while True:
            message = wire.SettleDead(
                0, discard, every=True, tenant=tenant, reason=reason, after=after
            )
            done = await self._session.call(message, wire.Cancelled)
            count += done.count
            report(count)
            if done.next is None:
                return count
            after = done.next


def as_asked(task: Task, *, discard: bool) -> bool:
    """Whether a task that was to be retried or discarded stands as whoever asked wanted it."""
    if discard:
        return task.state is TaskState.CANCELLED
    return task.state not in (TaskState.CANCELLED, TaskState.EXPIRED)


def edited(
    content: Content, prompt: Prompt | None = None, sampling: Mapping[str, Any] | None = None
) -> Content:
    """`content` with another prompt, other sampling, or both. Raises InvalidRequest."""
    if prompt is not None:
        content = _with_prompt(content, prompt)
    if not sampling:
        return content
    fields = msgspec.to_builtins(content.sampling) | dict(sampling)
    unknown = sorted(set(fields) - set(Sampling.__struct_fields__))
    if unknown:
        known = ", ".join(Sampling.__struct_fields__)
        raise InvalidRequest(f"no setting {unknown[0]!r} of a task; there are: {known}")
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return msgspec.structs.replace(content, sampling=msgspec.convert(given, Sampling))
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error)) from None


def _with_prompt(content: Content, prompt: Prompt) -> Content:
    if not isinstance(prompt, str):
        return Content(messages_of(prompt), None, content.sampling)
    if content.prompt is not None:
        return Content((), prompt, content.sampling)
    turns = content.messages
    places = [place for place, turn in enumerate(turns) if turn.role == "user"]
    place = places[-1] if places else len(turns)
    messages = (*turns[:place], *messages_of(prompt), *turns[place + 1 :])
    return Content(messages, None, content.sampling)
