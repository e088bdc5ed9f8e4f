"""From what a person hands in to a `TaskSpec`, and whether a `TaskSpec` is one.

`check` is made twice: by the client, so that a mistake is told at once, and by the server, which
trusts no client. It is the one place that says what each field may be.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack, cast, get_args

import msgspec

from autoglm.errors import InvalidRequest, UsageError
from autoglm.graph import AfterFailure
from autoglm.sampling import SamplingOptions, check_sampling, sampling_of
from autoglm.text import duration_s, one_line
from autoglm.types import (
    PRIORITY_LEAST_URGENT,
    PRIORITY_MOST_URGENT,
    Message,
    Task,
    TaskSpec,
)

Prompt = str | Sequence[Message | Mapping[str, Any]]
"""A text, taken as one user message, or the messages of a conversation."""
TaskRef = str | Task | TaskSpec
"""A task, by its id or as it is."""

NAME_CHARS_MAX = 200
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
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HALF_A_PAIR = "the task holds text that is not valid Unicode"
TIME_MS_MAX = 2**53
"""Far beyond any date, and exact in every language's numbers."""


class TaskOptions(SamplingOptions, total=False):
    """What may be said about a task besides its prompt; all of it is optional.

    `deadline` and `expires` are from now, in seconds or words such as `"2h"`. `system` is put
    before the messages. `attempt_timeout`, also in seconds or words, is what one attempt may take,
    and after `max_attempts` failures there is no other; the server's own limits if not given.
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
    after: TaskRef | Iterable[TaskRef]
    after_failure: AfterFailure
    deadline: float | str | None
    expires: float | str | None
    max_attempts: int | None
    attempt_timeout: float | str | None
    system: str | None
    stream: bool


OPTIONS = frozenset(TaskOptions.__annotations__)
_AS_THEY_ARE = ("queue", "priority", "kind", "key", "max_attempts", "weight")
_task_decoder = msgspec.msgpack.Decoder(TaskSpec)


def task_spec(
    prompt: Prompt,
    *,
    id: str,
    now_ms: int,
    json_schema: str | None = None,
    **options: Unpack[TaskOptions],
) -> TaskSpec:
    """The task that `prompt` and the options describe.

    Raises InvalidRequest naming the option that is wrong.
    """
    given: Mapping[str, Any] = options
    for name in given.keys() - OPTIONS:
        near = difflib.get_close_matches(name, OPTIONS, n=1)
        raise InvalidRequest(f"no option {name}{f'; did you mean {near[0]}?' if near else ''}")
    spec = TaskSpec(
        id=id,
        messages=messages_of(prompt, given.get("system")),
        sampling=sampling_of(given, json_schema),
        tenant=given.get("tenant", "default"),
        after=_ids_of(given.get("after", ())),
        after_failure=given.get("after_failure", "cancel"),
        deadline_at=moment_ms("deadline", given.get("deadline"), now_ms),
        expires_at=moment_ms("expires", given.get("expires"), now_ms),
        stream=given.get("stream", False),
        attempt_timeout_s=span_s("attempt_timeout", given.get("attempt_timeout")),
        factors=dict(given.get("factors", ())),
        **{name: given.get(name) for name in _AS_THEY_ARE},
    )
    _check_types(spec)
    check(spec)
    return spec


def _check_types(spec: TaskSpec) -> None:
    """Raises InvalidRequest for what no frame can carry, naming the field."""
    try:
        _task_decoder.decode(msgspec.msgpack.encode(spec))
    except UnicodeEncodeError:
        raise InvalidRequest(_HALF_A_PAIR) from None
    except (msgspec.ValidationError, TypeError, OverflowError) as error:
        what, _, where = str(error).partition(" - at `$")
        field = where.strip("`.").removeprefix("sampling.").split("[")[0]
        text = what.replace("`", "")
        raise InvalidRequest(f"{field}: {text[:1].lower()}{text[1:]}" if field else text) from None


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
    check_sampling(spec.sampling)
    if spec.stream and (spec.sampling.n or 1) > 1:
        raise InvalidRequest(f"n {spec.sampling.n}: a stream is of one answer")


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
    """Raises InvalidRequest for a tenant, queue, kind or key that can be none: it is too short or
    too long, or holds a control character.
    """
    if not 0 < len(value) <= NAME_CHARS_MAX:
        raise InvalidRequest(f"{field}: from 1 to {NAME_CHARS_MAX} characters, not {len(value)}")
    if (control := control_in(value)) is not None:
        raise InvalidRequest(f"{field}: a name holds no control character, such as {control!r}")


def control_in(name: str) -> str | None:
    """The first control character in `name`: SQLite's JSON ends a text at NUL, and a line feed
    makes two lines of one.
    """
    found = _CONTROL.search(name)
    return found and found[0]


def size_bytes(spec: TaskSpec) -> int:
    """Its size on the wire. Raises InvalidRequest when a text holds half a surrogate pair.

    No encoding can carry those; they come from a command line that is not UTF-8.
    """
    try:
        return len(msgspec.msgpack.encode(spec))
    except UnicodeEncodeError:
        raise InvalidRequest(_HALF_A_PAIR) from None


def id_of(task: TaskRef) -> str:
    """Raises InvalidRequest for what is no task."""
    id = task if isinstance(task, str) else getattr(cast("object", task), "id", None)
    if not isinstance(id, str):
        raise InvalidRequest(f"not a task, nor the id of one: {one_line(repr(task), 80)}")
    return id


def refuse_one_text(call: str, prompts: object) -> None:
    """Raises InvalidRequest for one text where several are wanted: it would come in letters."""
    if isinstance(prompts, str | bytes):
        raise InvalidRequest(f"{call} takes several prompts, not one text: {call}([…])")


def _ids_of(after: TaskRef | Iterable[TaskRef]) -> tuple[str, ...]:
    one = isinstance(after, str | Task | TaskSpec)
    return tuple(map(id_of, (after,) if one else after))


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
