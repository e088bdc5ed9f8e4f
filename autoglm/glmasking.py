"""How `AutoGLM.generate` asks: which prompts are one or several, and what is said of each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import anyio

from autoglm.client import Client
from autoglm.errors import InvalidRequest
from autoglm.result import Parsed, Result
from autoglm.spec import TaskOptions
from autoglm.types import Sampling


async def several(
    client: Client, prompts: list[Any], timeout: float | None, given: Any
) -> list[Any]:
    """What each prompt's answer says. Raises TimeoutError, and leaves the tasks in the queue."""
    texts: list[Any] = []
    try:
        with anyio.fail_after(timeout):
            async for result in cast("AsyncIterator[Result]", client.map(prompts, **given)):
                texts.append(said(result))  # noqa: PERF401 # how many there are is told
    except TimeoutError:
        late = f"{len(texts)} of {len(prompts)} prompts, in order, had answers in {timeout:g} s"
        raise TimeoutError(late) from None
    return texts


def check_texts_alone(params: TaskOptions) -> None:
    """Raises InvalidRequest for what asks for more than one text."""
    sampling = params.get("sampling") or Sampling()
    for name in ("n", "logprobs"):
        value = params.get(name, getattr(sampling, name, None))
        if value is not None and (name, value) != ("n", 1):
            raise InvalidRequest(
                f"{name} {value}: generate returns one text; autoglm.sync.Client returns all of it"
            )


def is_one(prompt: object) -> bool:
    """A text, the messages of one conversation, or no prompt at all; else it is several."""
    if isinstance(prompt, str | Mapping) or not hasattr(prompt, "__iter__"):
        return True
    first = next(iter(cast("Sequence[object]", prompt)), None) if _is_list(prompt) else None
    return first is not None and not isinstance(first, str) and not _is_list(first)


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def said(result: Result) -> Any:
    """The value that was asked for, else the text."""
    return cast("Parsed[Any]", result).parsed if isinstance(result, Parsed) else result.text
