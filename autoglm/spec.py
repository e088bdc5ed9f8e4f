"""From what a person hands in to a `TaskSpec`, and whether a `TaskSpec` is one.

`check` is made twice: by the client, so that a mistake is told at once, and by the server, which
trusts no client. It is the one place that says what each field may be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, cast, get_args

import msgspec

from autoglm.errors import InvalidRequest, UsageError
from autoglm.graph import AfterFailure
from autoglm.text import duration_s, one_line
from autoglm.types import (
    PRIORITY_LEAST_URGENT,
    PRIORITY_MOST_URGENT,
    Message,
    Sampling,
    Task,
    TaskSpec,
)

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A text, taken as one user message, or the messages of a conversation."""

NAME_CHARS_MAX = 200
STOPS_MAX = 16
AFTER_FAILURES = get_args(AfterFailure)
FACTORS_MAX = 16
NUMBER_MAX = 10
"""Of a weight or a factor; the least is 0."""
NO_DEADLINE = "none"
"""What takes a deadline away in an edit."""
AFTER_MAX = 4096
"""Tasks that one task may wait for: each is looked up when it is stored."""
ATTEMPTS_MAX = 1000
TIMEOUT_S_MAX = 10**9
"""Some thirty years: for a time-out that never comes."""
TIME_MS_MAX = 2**53
"""Far beyond any date, and exact in every language's numbers."""

_RANGES: dict[str, tuple[float, float]] = {
    "max_tokens": (1, 2**31),
    "min_tokens": (0, 2**31),
    "temperature": (0, 100),
    "top_p": (0, 1),
    "top_k": (-1, 2**31),
    "min_p": (0, 1),
    "seed": (-(2**63), 2**63 - 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 100),
}
_EXCLUDES_ZERO = {"top_p", "repetition_penalty"}


class TaskOptions(TypedDict, total=False):
    """What may be said about a task besides its prompt; all of it is optional.

    `deadline` and `expires` are from now, in seconds or words such as `"2h"`. `system` is put
    before the messages. `attempt_timeout`, also in seconds or words, is what one attempt may take,
    and after `max_attempts` failures there is no other; the server's own limits if not given.
    `sampling` carries the rarer settings; those named here win over it.
    `priority` and `queue` of None are for the server's rules to choose, by `kind`, `weight` and
    `factors` (numbers from 0 to 10). `stream` says that somebody will follow the answer as it is
    written. `after` names tasks, by id or as they are, that must succeed first; with
    `after_failure` "run" they must only have ended.
    """

    priority: int | None
    key: str | None
    tenant: str
    queue: str | None
    kind: str | None
    weight: float | None
    factors: Mapping[str, float] | Iterable[tuple[str, float]]
    after: str | Iterable[str | Task | TaskSpec]
    after_failure: AfterFailure
    deadline: float | str | None
    expires: float | str | None
    max_attempts: int | None
    attempt_timeout: float | str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    stop: str | Iterable[str]
    sampling: Sampling
    stream: bool


def task_spec(
    prompt: Prompt,
    *,
    id: str,
    now_ms: int,
    priority: int | None = None,
    key: str | None = None,
    tenant: str = "default",
    queue: str | None = None,
    kind: str | None = None,
    weight: float | None = None,
    factors: Mapping[str, float] | Iterable[tuple[str, float]] = (),
    after: str | Iterable[str | Task | TaskSpec] = (),
    after_failure: AfterFailure = "cancel",
    deadline: float | str | None = None,
    expires: float | str | None = None,
    max_attempts: int | None = None,
    attempt_timeout: float | str | None = None,
    system: str | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    stop: str | Iterable[str] = (),
    sampling: Sampling | None = None,
    stream: bool = False,
) -> TaskSpec:
    """The task that `prompt` and the options of `TaskOptions` describe.

    Raises InvalidRequest naming the option that is wrong.
    """
    named = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if stop:
        given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    spec = TaskSpec(
        id=id,
        messages=messages_of(prompt, system),
        sampling=msgspec.structs.replace(sampling or Sampling(), **given),
        tenant=tenant,
        queue=queue,
        priority=priority,
        kind=kind,
        key=key,
        after=_ids_of(after),
        after_failure=after_failure,
        deadline_at=moment_ms("deadline", deadline, now_ms),
        expires_at=moment_ms("expires", expires, now_ms),
        stream=stream,
        max_attempts=max_attempts,
        attempt_timeout_s=span_s("attempt_timeout", attempt_timeout),
        weight=weight,
        factors=dict(factors),
    )
    check(spec)
    return spec


def messages_of(prompt: Prompt, system: str | None = None) -> tuple[Message, ...]:
    """The conversation: a text becomes one user message. Raises InvalidRequest."""
    first = () if system is None else (Message("system", system),)
    if isinstance(prompt, str):
        return (*first, Message("user", prompt))
    messages = tuple(map(_message, prompt))
    if not messages:
        raise InvalidRequest("messages: at least one is needed")
    return first + messages


def moment_ms(option: str, duration: float | str | None, now_ms: int) -> int | None:
    """The moment that lies `duration` from `now_ms`. Raises InvalidRequest naming the option."""
    seconds = span_s(option, duration)
    return None if seconds is None else now_ms + round(seconds * 1000)


def span_s(option: str, duration: float | str | None) -> float | None:
    """The seconds that `duration` says. Raises InvalidRequest naming the option."""
    if duration is None:
        return None
    try:
        return duration_s(duration)
    except UsageError as error:
        raise InvalidRequest(f"{option}: {error}") from None


def check(spec: TaskSpec) -> None:
    """Raises InvalidRequest for what no server takes, naming the field."""
    if spec.priority is not None:
        check_priority(spec.priority)
    for field in ("tenant", "queue", "kind", "key"):
        value = getattr(spec, field)
        if value is not None:
            check_name(field, value)
    if len(spec.after) > AFTER_MAX:
        raise InvalidRequest(f"after: at most {AFTER_MAX} tasks, not {len(spec.after)}")
    if spec.id in spec.after:
        raise InvalidRequest(f"after {spec.id}: a task can't wait for itself")
    if spec.after_failure not in AFTER_FAILURES:
        raise InvalidRequest(f"after_failure: {' or '.join(AFTER_FAILURES)}")
    check_moment("deadline_at", spec.deadline_at)
    check_moment("expires_at", spec.expires_at)
    _check_numbers(spec)
    attempts, timeout_s = spec.max_attempts, spec.attempt_timeout_s
    if attempts is not None and not 1 <= attempts <= ATTEMPTS_MAX:
        raise InvalidRequest(f"max_attempts {attempts}: from 1 to {ATTEMPTS_MAX}")
    if timeout_s is not None and not 0 < timeout_s <= TIMEOUT_S_MAX:  # NaN is within nothing
        raise InvalidRequest(f"attempt_timeout_s {timeout_s}: above 0 to {TIMEOUT_S_MAX} seconds")
    _check_sampling(spec.sampling)


def check_priority(priority: int) -> None:
    """Raises InvalidRequest for one that there is not."""
    if not PRIORITY_MOST_URGENT <= priority <= PRIORITY_LEAST_URGENT:
        raise InvalidRequest(
            f"priority {priority}: from {PRIORITY_MOST_URGENT} (most urgent)"
            f" to {PRIORITY_LEAST_URGENT} (least)",
        )


def check_moment(field: str, at_ms: int | None) -> None:
    """Raises InvalidRequest for what is no time."""
    if at_ms is not None and not 0 <= at_ms <= TIME_MS_MAX:
        raise InvalidRequest(f"{field} {at_ms} is no time in Unix milliseconds")


def _check_numbers(spec: TaskSpec) -> None:
    if len(spec.factors) > FACTORS_MAX:
        raise InvalidRequest(f"factors: at most {FACTORS_MAX}, not {len(spec.factors)}")
    for name in spec.factors:
        check_name("a factor's name", name)
    numbers = {f"factor {one_line(name, 40)}": value for name, value in spec.factors.items()}
    if spec.weight is not None:
        numbers["weight"] = spec.weight
    for name, value in numbers.items():
        if not 0 <= value <= NUMBER_MAX:  # NaN is within nothing
            raise InvalidRequest(f"{name} {value}: from 0 to {NUMBER_MAX}")


def check_name(field: str, value: str) -> None:
    """Raises InvalidRequest for a tenant, queue, kind or key that is too short or too long."""
    if not 0 < len(value) <= NAME_CHARS_MAX:
        raise InvalidRequest(f"{field}: from 1 to {NAME_CHARS_MAX} characters, not {len(value)}")


def _check_sampling(sampling: Sampling) -> None:
    for field, (least, most) in _RANGES.items():
        value = getattr(sampling, field)
        within = value is None or least <= value <= most  # NaN is within nothing
        if not within or (value == 0 and field in _EXCLUDES_ZERO):
            above = "above" if field in _EXCLUDES_ZERO else "from"
            raise InvalidRequest(f"{field} {value}: {above} {least} to {most}")
    if len(sampling.stop) > STOPS_MAX:
        raise InvalidRequest(f"stop: at most {STOPS_MAX} texts, not {len(sampling.stop)}")
    if "" in sampling.stop:
        raise InvalidRequest("stop: an empty text would stop every answer at once")


def size_bytes(spec: TaskSpec) -> int:
    """Its size on the wire. Raises InvalidRequest when a text holds half a surrogate pair.

    No encoding can carry those; they come from a command line that is not UTF-8.
    """
    try:
        return len(msgspec.msgpack.encode(spec))
    except UnicodeEncodeError:
        raise InvalidRequest("the task holds text that is not valid Unicode") from None


def _ids_of(after: str | Iterable[str | Task | TaskSpec]) -> tuple[str, ...]:
    tasks = (after,) if isinstance(after, str) else after
    return tuple(each if isinstance(each, str) else each.id for each in tasks)


def _message(turn: Message | Mapping[str, Any]) -> Message:
    if isinstance(turn, Message):
        return turn
    if not isinstance(cast("object", turn), Mapping):
        raise InvalidRequest(f"messages: a turn is an object with role and content, not {turn!r}")
    unknown = set(turn) - {"role", "content", "name"}
    if unknown:
        raise InvalidRequest(f"messages: {one_line(min(unknown), 40)} is not supported")
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
