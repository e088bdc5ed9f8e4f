"""One `Client.map` call: draws prompts, submits them in bulk, hands out what became of them.

    prompts ──draw──▶ drawn ──submit──▶ one follower a batch ──▶ done ──take──▶ the caller
       ▲                                                                          │
       └───────────────────── room, once enough has been taken ◀──────────────────┘

Invariant: what was drawn and not yet taken never exceeds `in_flight`. A batch is whatever was
drawn while the one before was being sent, so that a fast source makes large frames and a slow
one waits for nothing. A batch that a full server has no room for is halved, and both halves are
handed in again when it says so.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable

import anyio
import msgspec

from autoglm import wire
from autoglm.connection import Channel
from autoglm.errors import AutoGLMError, InvalidRequest, ServerBusy
from autoglm.outcomes import accepted_task, result_of
from autoglm.prompts import Prompt
from autoglm.result import Result
from autoglm.session import AWAY, Session, unexpected
from autoglm.spec import size_bytes
from autoglm.types import Answer, TaskSpec

Outcome = Result | AutoGLMError

BATCH_TASKS_MAX = 1024
BATCH_BYTES_MAX = 4 * 1024 * 1024
ASKING_MAX = 8
"""Batches that wait for room at once; the others wait for them."""


class Mapping:
    def __init__(
        self,
        session: Session,
        to_spec: Callable[[Prompt], TaskSpec],
        of_result: Callable[[Result], Result],
        *,
        ordered: bool,
        in_flight: int,
    ) -> None:
        if in_flight < 1:
            raise InvalidRequest(f"in_flight {in_flight}: at least 1")
        self._session = session
        self._to_spec = to_spec
        self._of_result = of_result
        self._ordered = ordered
        self._in_flight = in_flight
        self._running = anyio.CancelScope()
        self._drawn: dict[int, TaskSpec] = {}
        """By the prompt's number: not submitted yet."""
        self._done: dict[int, Outcome] = {}
        """By the prompt's number, in the order they ended: not taken yet."""
        self._count = 0
        """Prompts drawn so far."""
        self._taken = 0
        self._exhausted = False
        self._source_error: Exception | None = None
        """What the prompts' iterator raised: told after all that came before it."""
        self._fatal: AutoGLMError | None = None
        """Why no more answers can come: told at once."""
        self._changed = anyio.Event()
        self._asking = anyio.Semaphore(ASKING_MAX)

    def __repr__(self) -> str:
        return (
            f"<Mapping {self._count} drawn, {self._taken} taken,"
            f" {len(self._drawn)} to submit, {len(self._done)} to take>"
        )

    async def run(self, prompts: Iterable[Prompt] | AsyncIterable[Prompt]) -> None:
        """Draw, submit and collect until all is done or `cancel` is called."""
        with self._running:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(self._draw, prompts)
                while batch := await self._next_batch():
                    self._tasks.start_soon(self._follow, batch)

    async def take(self) -> Outcome | None:
        """What became of the next prompt; None when there are no more."""
        while True:
            number = self._taken if self._ordered else next(iter(self._done), None)
            if number in self._done:
                outcome = self._done.pop(number)
                self._taken += 1
                self._notify()
                return outcome
            if self._fatal:
                raise self._fatal
            if self._exhausted and self._taken == self._count:
                if self._source_error:
                    raise self._source_error
                return None
            await self._changed.wait()

    async def take_some(self) -> list[Outcome]:
        """Like `take`, of all that is there to be taken, at least one; empty at the end."""
        some: list[Outcome] = []
        while (not some or self.ready) and (outcome := await self.take()) is not None:
            some.append(outcome)
        return some

    @property
    def ready(self) -> bool:
        """Whether there is something to take. Any thread may ask."""
        return self._taken in self._done if self._ordered else bool(self._done)

    def cancel(self) -> None:
        """Draw no more and stop listening; what was submitted stays submitted."""
        self._running.cancel()

    async def _draw(self, prompts: Iterable[Prompt] | AsyncIterable[Prompt]) -> None:
        try:
            async for prompt in _each(prompts):
                await self._room()
                number = self._count
                try:
                    self._drawn[number] = self._to_spec(prompt)
                except AutoGLMError as error:
                    self._done[number] = error
                self._count += 1  # not before: nobody may wait for one that could not be made
                self._notify()
        except Exception as error:  # it is the caller's: he gets it back
            self._source_error = error
        self._exhausted = True
        self._notify()

    async def _room(self) -> None:
        """Return when another prompt may be drawn: at once, or when a quarter has come free."""
        if self._count - self._taken < self._in_flight:
            return
        enough = self._in_flight - max(self._in_flight // 4, 1)
        while self._count - self._taken > enough:
            await self._changed.wait()

    async def _next_batch(self) -> dict[int, TaskSpec]:
        """What was drawn, up to the size of a frame; empty at the end."""
        while not self._drawn and not self._exhausted:
            await self._changed.wait()
        batch: dict[int, TaskSpec] = {}
        size = 0
        for number, spec in self._drawn.items():
            size += size_bytes(spec)
            if batch and (size > BATCH_BYTES_MAX or len(batch) == BATCH_TASKS_MAX):
                break
            batch[number] = spec
        for number in batch:
            del self._drawn[number]
        return batch

    async def _follow(self, waiting: dict[int, TaskSpec]) -> None:
        """Submit a batch and collect its answers; after a lost connection, what is missing."""
        patience = msgspec.structs.replace(self._session.patience, busy_s=math.inf)
        retry = self._session.retry(patience)
        while waiting:
            channel = None
            try:
                message = wire.Submit(0, tuple(waiting.values()), follow=True)
                channel = await self._session.open(message)
                await self._collect(channel, waiting)
            except AWAY as error:
                if isinstance(error, ServerBusy):
                    self._halve(waiting)
                try:
                    async with self._asking:
                        await retry.pause(error)
                except AutoGLMError as final:
                    return self._fail(final)
            except AutoGLMError as error:
                return self._fail(error)
            finally:
                if channel:
                    channel.close()
        return None

    def _halve(self, waiting: dict[int, TaskSpec]) -> None:
        """Leave the second half of a batch to another follower."""
        numbers = list(waiting)
        rest = {number: waiting.pop(number) for number in numbers[(len(numbers) + 1) // 2 :]}
        if rest:
            self._tasks.start_soon(self._follow, rest)

    async def _collect(self, channel: Channel, waiting: dict[int, TaskSpec]) -> None:
        """Move what ends from `waiting` to done, until nothing waits."""
        numbers: dict[str, list[int]] = {}
        """Of the prompts behind each task: prompts with one key share one."""
        while waiting:
            match await channel.receive():
                case wire.Submitted(tasks=tasks):
                    for number, accepted in zip(list(waiting), tasks, strict=True):
                        try:
                            numbers.setdefault(accepted_task(accepted).id, []).append(number)
                        except AutoGLMError as error:
                            self._end(waiting, number, error)
                case wire.AnswerReply(answer=Answer() as answer):
                    for number in numbers.pop(answer.task.id, ()):
                        self._end(waiting, number, self._outcome(answer))
                case wire.Chunk():
                    pass  # of a task that somebody else submitted, to be streamed
                case reply:
                    raise unexpected(reply)

    def _end(self, waiting: dict[int, TaskSpec], number: int, outcome: Outcome) -> None:
        del waiting[number]
        self._done[number] = outcome
        self._notify()

    def _outcome(self, answer: Answer) -> Outcome:
        try:
            return self._of_result(result_of(answer))
        except AutoGLMError as error:
            return error

    def _fail(self, error: AutoGLMError) -> None:
        self._fatal = error
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def _each(prompts: Iterable[Prompt] | AsyncIterable[Prompt]) -> AsyncIterator[Prompt]:
    if isinstance(prompts, AsyncIterable):
        async for prompt in prompts:
            yield prompt
    else:
        for prompt in prompts:
            yield prompt
