"""What a person may hand in as a prompt, and what is said of anything else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from autoglm.errors import InvalidRequest
from autoglm.text import one_line
from autoglm.types import Message, TaskSpec

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A text, taken as one user message, or the messages of a conversation."""


def messages_of(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """The conversation: a text becomes one user message. Raises InvalidRequest."""
    first = () if system is None else (Message("system", system),)
    if isinstance(prompt, str):
        return (*first, Message("user", prompt))
    if not isinstance(cast("object", prompt), Iterable) or isinstance(prompt, bytes | Mapping):
        raise InvalidRequest(f"a prompt is a text or a list of messages, not {named(prompt)}")
    messages = tuple(map(_message, prompt))
    if not messages:
        raise InvalidRequest("messages: at least one is needed")
    return first + messages


def refuse_no_prompts(call: str, prompts: object, *kinds: type) -> None:
    """Raises InvalidRequest for what is none of `kinds`, the ways of giving several, and for one
    text, which would come in letters.
    """
    if isinstance(prompts, str | bytes):
        raise InvalidRequest(f"{call} takes several prompts, not one text: {call}([…])")
    if not isinstance(prompts, kinds or (Iterable,)):
        raise InvalidRequest(f"{call} takes several prompts, not {named(prompts)}: {call}([…])")


def named(value: object) -> str:
    """What it is that came in the place of something else."""
    if value is None:
        return "None"
    if isinstance(value, TaskSpec):
        return "a TaskSpec: submit_many takes those"
    return f"{type(value).__name__} {one_line(repr(value), 60)}"


def _message(turn: Message | Mapping[str, Any]) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(cast("object", turn), Mapping):
        raise InvalidRequest(
            f"messages: a turn is an object with role and content, not {named(turn)}"
        )
    unknown = set(turn) - {"role", "content", "name"}
    if unknown:
        raise InvalidRequest(f"messages: {one_line(min(map(str, unknown)), 40)} is not supported")
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(role, str) or not role:
        raise InvalidRequest("messages: every turn needs a role")
    return Message(role, _text_of(content))


def _text_of(content: object) -> str:
    """A turn's text; the parts of a list are joined when all of them are text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        raise InvalidRequest("messages: content is a text or a list of parts of type text")
    texts: list[str] = []
    for part in cast("Sequence[object]", content):
        fields = cast("Mapping[str, object]", part if isinstance(part, Mapping) else {})
        text = fields.get("text")
        if fields.get("type") != "text" or not isinstance(text, str):
            kind = one_line(str(fields.get("type")), 40)
            raise InvalidRequest(f"messages: a part of type {kind} is not supported, only text")
        texts.append(text)
    return "".join(texts)
