"""A recorded answer, as the client hands it out."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from autoglm.degrade import Degraded
from autoglm.errors import InvalidAnswer
from autoglm.formats import Form, Format, NotOfTheForm, format_of
from autoglm.types import Choice, Task, TokenLogprob, Usage

T = TypeVar("T")


class Result(msgspec.Struct, frozen=True):
    """A recorded answer together with its task.

        result = await client.generate("Name a prime number.", n=2, logprobs=0)
        print(result.text, result.finish_reason, result.usage.completion_tokens)
        for choice in result.choices:
            print(choice.text)

    `finish_reason` is `stop` (the model had said all, or came to a stop text) or `length`
    (`max_tokens`, or the context was full).
    """

    text: str
    finish_reason: str
    usage: Usage
    """Of all choices together."""
    task: Task
    degraded: Degraded | None = None
    """How it was answered without an engine; None: it was not."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the text's tokens, where `logprobs` asked for them."""
    others: tuple[Choice, ...] = ()
    """The further answers, where `n` asked for more than one."""

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All answers to the prompt: `text`, and with `n` above 1 the others."""
        return (Choice(self.text, self.finish_reason, self.logprobs), *self.others)

    def parse(self, form: Form[T]) -> T:
        """The answer as a value of `form`: a type that msgspec knows, or a JSON schema.

            class City(msgspec.Struct):
                name: str

            task = await client.submit("Name a city.", response_format=City)
            city = (await client.result(task.id)).parse(City)

        Raises InvalidAnswer, which holds this result, when the text is not one.
        """
        return _value(self, format_of(form))


class Parsed(Result, Generic[T], frozen=True, kw_only=True):
    """A result whose text follows the `response_format` that was asked for: `parsed` is the value.

    result = await client.generate("Name a city.", response_format=City)
    print(result.parsed.name)
    """

    parsed: T


def parsed(result: Result, wanted: Format[T]) -> Parsed[T]:
    """The result with its value. Raises InvalidAnswer."""
    return Parsed(**msgspec.structs.asdict(result), parsed=_value(result, wanted))


def _value(result: Result, wanted: Format[T]) -> T:
    try:
        return wanted.read(result.text)
    except NotOfTheForm as error:
        cut = " (it was cut short: raise max_tokens)" if result.finish_reason == "length" else ""
        raise InvalidAnswer(
            f"the answer of task {result.task.id} is not of the form asked for{cut}: {error}",
            task=result.task,
            result=result,
        ) from None
