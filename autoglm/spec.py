"""From what a person hands in to a `TaskSpec`, and whether a `TaskSpec` is one.

`check` is made twice: by the client, so that a mistake is told at once, and by the server, which
trusts no client. It is the one place that says what each field may be.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, SupportsIndex, Unpack, cast, get_args

import msgspec

from autoglm.errors import InvalidRequest, UsageError
from autoglm.graph import AfterFailure
from autoglm.prompts import Prompt, messages_of, named
from autoglm.sampling import SamplingOptions, check_sampling, sampling_of
from autoglm.text import duration_s, one_line
from autoglm.types import (
    PRIORITY_LEAST_URGENT,
    PRIORITY_MOST_URGENT,
    Task,
    TaskSpec,
)

TaskRef = str | Task | TaskSpec
"""A task, by its id or as it is."""

NAME_CHARS_MAX = 200
AFTER_FAILURES = get_args(AfterFailure)
FACTORS_MAX = 16
NUMBER_MAX = 10
"""Of a weight or a factor; the least is 0."""
NO_DEADLINE = "none"
"""What takes a deadline away in an edit."""
TASK_BYTES_MAX = 32 * 1024 * 1024 - 4096
"""One task has to fit into one message, with what stands around it."""
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
        factors=_factors_of(given.get("factors", ())),
        **{name: given.get(name) for name in _AS_THEY_ARE},
    )
    spec = _plain(spec)
    check(spec)
    return spec


def _plain(spec: TaskSpec) -> TaskSpec:
    """The same of Python's own texts and numbers, as the server will read it. Raises
    InvalidRequest for what no frame can carry, naming the field.
    """
    try:
        body = msgspec.msgpack.encode(spec, enc_hook=_plain_value)
        if len(body) > TASK_BYTES_MAX:
            raise InvalidRequest(f"a task takes up to {TASK_BYTES_MAX} bytes, not {len(body)}")
        return _task_decoder.decode(body)
    except UnicodeEncodeError:
        raise InvalidRequest(_HALF_A_PAIR) from None
    except OverflowError:
        raise InvalidRequest(f"{_too_large(spec)}: an integer of at most 64 bits") from None
    except (msgspec.ValidationError, TypeError) as error:
        what, _, where = str(error).partition(" - at `$")
        field = where.strip("`.").removeprefix("sampling.").split("[")[0]
        text = what.replace("`", "")
        raise InvalidRequest(f"{field}: {text[:1].lower()}{text[1:]}" if field else text) from None


def _factors_of(factors: Mapping[str, float] | Iterable[tuple[str, float]]) -> dict[str, float]:
    try:
        return dict(factors)
    except (TypeError, ValueError):
        raise InvalidRequest(f"factors: names with numbers, not {named(factors)}") from None


def _too_large(spec: TaskSpec) -> str:
    """The first field with an integer that no frame can carry."""
    for part in (spec, spec.sampling):
        for name, value in msgspec.structs.asdict(part).items():
            values = tuple(spec.factors.values()) if name == "factors" else (value,)
            if any(isinstance(each, int) and not -(2**63) <= each < 2**64 for each in values):
                return name
    return "the task"


def _plain_value(value: object) -> object:
    """Of a class derived from a text, or a number as numpy's are."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, SupportsIndex):
        return operator.index(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} is neither text nor number")


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
    except TypeError:
        raise InvalidRequest(
            f"{option}: seconds or words such as 2h, not {named(duration)}"
        ) from None


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


def _ids_of(after: TaskRef | Iterable[TaskRef]) -> tuple[str, ...]:
    one = isinstance(after, str | Task | TaskSpec)
    if not one and not isinstance(cast("object", after), Iterable):
        raise InvalidRequest(f"after: tasks or their ids, not {named(after)}")
    return tuple(map(id_of, (after,) if one else after))
