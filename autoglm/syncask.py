"""Handing in prompts and getting their answers, for callers that block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeVar, Unpack, overload

from autoglm.blocking import Face, Loop, blocking, iterating
from autoglm.client import Client as Awaiting
from autoglm.errors import AutoGLMError
from autoglm.formats import Form
from autoglm.mapping import Mapping
from autoglm.prompts import Prompt, refuse_no_prompts
from autoglm.result import Parsed, Result
from autoglm.spec import TaskOptions, TaskRef
from autoglm.syncmap import Source, outcomes
from autoglm.types import TaskSpec

T = TypeVar("T")


class AskCalls(Face):
    """A part of `autoglm.sync.Client`."""

    awaited: Awaiting
    loop: Callable[[], Loop]

    submit = blocking(Awaiting.submit)
    submit_many = blocking(Awaiting.submit_many)
    answer = blocking(Awaiting.answer)
    stream = iterating(Awaiting.stream)
    follow = iterating(Awaiting.follow)

    def spec(
        self,
        prompt: Prompt,
        *,
        response_format: Form[Any] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskSpec:
        """A task that is not handed in yet: its `id` is known, so that others can come `after` it.

            first = client.spec("Summarise chapter one.")
            client.submit_many([first, client.spec("Translate the summary.", after=first)])

        Takes what `submit` takes. Raises InvalidRequest.
        """
        return self.awaited.spec(prompt, response_format=response_format, **options)

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        response_format: Form[T],
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Parsed[T]: ...

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        response_format: None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Result: ...

    def generate(
        self,
        prompt: Prompt,
        *,
        response_format: Form[Any] | None = None,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Result:
        """Hand in one task and wait for its answer, `timeout` seconds at most.

            result = client.generate("Why is the sky blue?", max_tokens=64)
            print(result.text)

        Interrupted, or when it takes too long, the task is cancelled. Raises what `submit` and
        `result` raise.
        """
        given: Any = {"response_format": response_format, "timeout": timeout, **options}
        return self.loop().wait(functools.partial(self.awaited.generate, prompt, **given))

    @overload
    def result(
        self, task: TaskRef, timeout: float | None = None, *, response_format: Form[T]
    ) -> Parsed[T]: ...

    @overload
    def result(
        self, task: TaskRef, timeout: float | None = None, *, response_format: None = None
    ) -> Result: ...

    def result(
        self,
        task: TaskRef,
        timeout: float | None = None,
        *,
        response_format: Form[Any] | None = None,
    ) -> Result:
        """The answer of a task, when there is one; waits at most `timeout` seconds.

            task = client.submit("Why is the sky blue?")
            print(client.result(task, timeout=60).text)

        Leaving early changes nothing: the task goes on. Raises TimeoutError, NotFound,
        InvalidAnswer, and TaskDead, TaskCancelled or TaskExpired when it ended without an answer.
        """
        given: Any = {"timeout": timeout, "response_format": response_format}
        return self.loop().wait(functools.partial(self.awaited.result, task, **given))

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        response_format: Form[T],
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[False] = False,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Parsed[T]]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        response_format: Form[T],
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[True],
        **options: Unpack[TaskOptions],
    ) -> Iterator[Parsed[T] | AutoGLMError]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        response_format: None = None,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[False] = False,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Result]: ...

    @overload
    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        response_format: None = None,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: Literal[True],
        **options: Unpack[TaskOptions],
    ) -> Iterator[Result | AutoGLMError]: ...

    def map(
        self,
        prompts: Iterable[Prompt],
        *,
        response_format: Form[Any] | None = None,
        ordered: bool = True,
        in_flight: int = 256,
        return_errors: bool = False,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Result | AutoGLMError]:
        """Hand in every prompt with the same options and yield the answers.

            for result in client.map(["one", "two", "three"], max_tokens=8):
                print(result.text)

        As `autoglm.Client.map`. `prompts` is drawn from in the caller's own thread, so it may use
        whatever belongs to that.
        """
        refuse_no_prompts("map", prompts)
        loop, target = self.loop(), self.awaited

        async def start() -> tuple[Mapping, Source]:
            mapping = target.mapping(response_format, ordered, in_flight, options)
            source = Source()
            target.session.tasks.start_soon(mapping.run, source)
            return mapping, source

        mapping, source = loop.wait(start)
        try:
            for outcome in outcomes(loop, mapping, source, prompts, in_flight):
                if isinstance(outcome, AutoGLMError) and not return_errors:
                    raise outcome
                yield outcome
        finally:
            loop.soon(mapping.cancel)
