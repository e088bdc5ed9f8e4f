"""Whether a task is one: what the server checks before it stores anything. Pure."""

from __future__ import annotations

import msgspec

from autoglm.errors import InvalidRequest
from autoglm.ids import ID_LENGTH
from autoglm.types import PRIORITY_LEAST_URGENT, PRIORITY_MOST_URGENT, ErrorInfo, Sampling, TaskSpec
from autoglm.wire import JobLine

NAME_CHARACTERS_MAX = 200
STOPS_MAX = 16
TIME_MS_MAX = 2**53
"""Far beyond any date, and exact in every language's numbers."""


def check_task(spec: TaskSpec, tenant: str | None) -> TaskSpec:
    """The task as it is to be stored, for `tenant` if the connection is bound to one.

    Raises InvalidRequest naming the field and saying what it should be.
    """
    if len(spec.id) != ID_LENGTH or not spec.id.isalnum():
        raise InvalidRequest(f"id {spec.id[:40]!r} is not {ID_LENGTH} letters and digits")
    if not PRIORITY_MOST_URGENT <= spec.priority <= PRIORITY_LEAST_URGENT:
        raise InvalidRequest(
            f"priority {spec.priority} is outside {PRIORITY_MOST_URGENT}-{PRIORITY_LEAST_URGENT}"
            f" ({PRIORITY_MOST_URGENT} is the most urgent)"
        )
    if bool(spec.messages) == (spec.prompt is not None):
        raise InvalidRequest("a task has either messages or a prompt")
    for name in ("tenant", "queue", "kind", "key"):
        value = getattr(spec, name)
        if value is not None and not 0 < len(value) <= NAME_CHARACTERS_MAX:
            raise InvalidRequest(f"{name} must have 1 to {NAME_CHARACTERS_MAX} characters")
    for name in ("deadline_at", "expires_at"):
        value = getattr(spec, name)
        if value is not None and not 0 <= value <= TIME_MS_MAX:
            raise InvalidRequest(f"{name} {value} is no time in Unix milliseconds")
    _check_sampling(spec.sampling)
    if tenant is not None and spec.tenant != tenant:
        return msgspec.structs.replace(spec, tenant=tenant)
    return spec


def check_line(line: JobLine, tenant: str | None) -> JobLine:
    """The line, or the same line as a failed one: a bad line never stops a job."""
    if line.task is None:
        return line
    try:
        return msgspec.structs.replace(line, task=check_task(line.task, tenant))
    except InvalidRequest as error:
        info = ErrorInfo(error.code, str(error))
        return msgspec.structs.replace(line, task=None, error=info)


def _check_sampling(sampling: Sampling) -> None:
    bounds = (
        ("max_tokens", 1, None),
        ("min_tokens", 0, None),
        ("temperature", 0, None),
        ("top_p", 0, 1),
        ("min_p", 0, 1),
        ("presence_penalty", -2, 2),
        ("frequency_penalty", -2, 2),
    )
    for name, low, high in bounds:
        value = getattr(sampling, name)
        if value is None:
            continue
        # Written so that NaN, which compares as false, is refused too.
        if not (value >= low and (high is None or value <= high)):
            span = f"{low} or more" if high is None else f"between {low} and {high}"
            raise InvalidRequest(f"{name} {value} must be {span}")
    if len(sampling.stop) > STOPS_MAX or any(not text for text in sampling.stop):
        raise InvalidRequest(f"stop takes up to {STOPS_MAX} strings, none of them empty")
