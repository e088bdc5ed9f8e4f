"""Handing in prompts and getting their answers, as a client says it."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any, Literal, TypeVar, Unpack, overload

import anyio

from autoglm import wire
from autoglm.errors import AutoGLMError, NotFound
from autoglm.formats import Form, Format, format_or_none
from autoglm.graphclient import GraphCalls
from autoglm.mapping import Mapping
from autoglm.outcomes import accepted_task, result_of
from autoglm.prompts import Prompt, refuse_no_prompts
from autoglm.result import Parsed, Result, parsed
from autoglm.spec import TaskOptions, TaskRef, id_of
from autoglm.streaming import Chunk, chunks
from autoglm.types import Answer, Task

T = TypeVar("T")
Prompts = Iterable[Prompt] | AsyncIterable[Prompt]
CANCEL_TIMEOUT_S = 2.0
"""How long an interrupted `generate` tries to take its task back."""


class AskCalls(GraphCalls):
    """A part of `Client`."""

    async def submit(
        self,
        prompt: Prompt,
        *,
        response_format: Form[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task:
        """Hand in one task (a text, or messages); it is durable when this returns.

            task = await client.submit("Why is the sky blue?", priority=2, max_tokens=64)
            print(task.id, task.state)

        With `response_format` (a msgspec Struct, a dataclass, any type msgspec knows, a pydantic
        model, or a JSON schema) the answer is JSON of that form. Safe to repeat with a `key`.
        Raises InvalidRequest, Conflict (the key is taken by other content), ServerBusy,
        ServerUnavailable, and EngineUnavailable at once where the queue says so.
        """
        spec = self.spec(prompt, response_format=response_format, **options)
        reply = await self._session.call(wire.Submit(0, (spec,)), wire.Submitted)
        return accepted_task(reply.tasks[0])

    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        response_format: Form[T],
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Parsed[T]: ...

    @overload
    async def generate(
        self,
        prompt: Prompt,
        *,
        response_format: None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Result: ...

    async def generate(
        self,
        prompt: Prompt,
        *,
        response_format: Form[Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Result:
        """Hand in one task and wait for its answer, `timeout` seconds at most.

            result = await client.generate("Why is the sky blue?", max_tokens=64)
            print(result.text)

        When this is cancelled or takes too long, the task is cancelled too, in the queue and in
        the engine: nobody waits for it. To leave and come back use `submit` and `result`. Raises
        what those raise.
        """
        wanted = format_or_none(response_format)
        spec = self._spec(prompt, wanted, options)
        try:
            with anyio.fail_after(timeout):
                reply = await self._session.call(wire.Submit(0, (spec,)), wire.Submitted)
                return await self._result(accepted_task(reply.tasks[0]).id, wanted)
        except (anyio.get_cancelled_exc_class(), TimeoutError):
            with anyio.move_on_after(CANCEL_TIMEOUT_S, shield=True):
                await self._session.call(wire.Cancel(0, (spec.id,)), wire.Cancelled)
            raise

    @overload
    async def result(
        self, task: TaskRef, timeout: float | None = None, *, response_format: Form[T]
    ) -> Parsed[T]: ...

    @overload
    async def result(
        self, task: TaskRef, timeout: float | None = None, *, response_format: None = None
    ) -> Result: ...

    async def result(
        self,
        task: TaskRef,
        timeout: float | None = None,
        *,
        response_format: Form[Any] | None = None,
    ) -> Result:
        """The answer of a task, when there is one; waits at most `timeout` seconds.

            task = await client.submit("Why is the sky blue?")
            result = await client.result(task, timeout=60)

        The task is given by id or as it is. Leaving early changes nothing: the task goes on, and
        whoever asks again gets its answer. With `response_format` the result has it as `parsed`.
        Raises TimeoutError, NotFound, InvalidAnswer, and TaskDead, TaskCancelled or TaskExpired
        when the task ended without an answer.
        """
        wanted = format_or_none(response_format)
        with anyio.fail_after(timeout):
            return await self._result(id_of(task), wanted)

    async def answer(self, task: TaskRef, *, wait: bool = False) -> Answer:
        """The task with its result, if it has one; with `wait`, once it has ended.

            answer = await client.answer(task)
            print(answer.task.state, answer.result and answer.result.text)

        Raises NotFound.
        """
        id = id_of(task)
        reply = await self._session.call(wire.Get(0, id, wait), wire.AnswerReply)
        if reply.answer is None:
            raise NotFound(f"no task {id}")
        return reply.answer

    async def stream(
        self,
        prompt: Prompt,
        *,
        response_format: Form[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Chunk]:
        """Hand in one task and yield its answer as it is written.

            async for chunk in client.stream("Tell me a story.", max_tokens=64):
                print(chunk, end="", flush=True)

        When an attempt breaks off, the next one's text is compared with what was yielded and
        only what is new is yielded; if it differs, one chunk with `reset` starts over. Joined, the
        chunks since the last reset are the recorded answer. A reader that leaves does not cancel
        the task: `follow` takes it up again. Raises as `submit` and `result` do.
        """
        options["stream"] = True
        spec = self.spec(prompt, response_format=response_format, **options)
        async for chunk in chunks(self._session, wire.Submit(0, (spec,), follow=True)):
            yield chunk

    async def follow(self, task: TaskRef) -> AsyncIterator[Chunk]:
        """Like `stream`, for a task there is; any number of readers may follow the same one.

            task = await client.submit("Tell me a story.", stream=True)
            async for chunk in client.follow(task):
                print(chunk, end="", flush=True)

        Who comes late gets at once what was written before. A task submitted without `stream`
        comes as a whole.
        """
        async for chunk in chunks(self._session, wire.Follow(0, id_of(task))):
            yield chunk

    @overload
    def map(
        self,
        prompts: Prompts,
        *,
        response_format: Form[T],
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[False] = False,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Parsed[T]]: ...

    @overload
    def map(
        self,
        prompts: Prompts,
        *,
        response_format: Form[T],
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[True],
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Parsed[T] | AutoGLMError]: ...

    @overload
    def map(
        self,
        prompts: Prompts,
        *,
        response_format: None = None,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[False] = False,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Result]: ...

    @overload
    def map(
        self,
        prompts: Prompts,
        *,
        response_format: None = None,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[True],
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Result | AutoGLMError]: ...

    async def map(
        self,
        prompts: Prompts,
        *,
        response_format: Form[Any] | None = None,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: bool = False,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Result | AutoGLMError]:
        """Hand in every prompt with the same options and yield the answers.

            async for result in client.map(["one", "two", "three"], max_tokens=8):
                print(result.text)

        They come in the order of the prompts, or as they end with `ordered` False. `prompts` is
        drawn from as answers are taken: at most `in_flight` are out or wait to be taken, so that
        memory stays flat however many there are. A prompt that is refused or ends without an
        answer raises its error in its place; with `return_errors` the error is yielded and the
        rest goes on. A server that is full is waited for.
        """
        refuse_no_prompts("map", prompts, Iterable, AsyncIterable)
        mapping = self.mapping(response_format, ordered, in_flight, options)
        self._session.tasks.start_soon(mapping.run, prompts)
        try:
            while (outcome := await mapping.take()) is not None:
                if isinstance(outcome, AutoGLMError) and not return_errors:
                    raise outcome
                yield outcome
        finally:
            mapping.cancel()

    def mapping(
        self,
        response_format: Form[Any] | None,
        ordered: bool,
        in_flight: int,
        options: TaskOptions,
    ) -> Mapping:
        """What `map` runs, here and in the blocking client. Raises InvalidRequest."""
        wanted = format_or_none(response_format)
        self._spec("", wanted, options)  # a wrong option is told once, not for every prompt
        return Mapping(
            self._session,
            lambda prompt: self._spec(prompt, wanted, options),
            lambda result: result if wanted is None else parsed(result, wanted),
            ordered=ordered,
            in_flight=in_flight,
        )

    async def _result(self, id: str, wanted: Format[Any] | None) -> Result:
        result = result_of(await self.answer(id, wait=True))
        return result if wanted is None else parsed(result, wanted)
