"""Admission: what the server checks before it stores anything. Pure.

Whatever passes here can be stored: every number that goes into a column has been held to its range,
so a write that fails afterwards is the disk's fault or ours, never the client's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from autoglm.errors import InvalidRequest
from autoglm.ids import ID_LENGTH
from autoglm.spec import check
from autoglm.types import ErrorInfo, TaskSpec
from autoglm.wire import TASKS_PER_SUBMIT_MAX, JobLine
from runtime.queueconfig import check_known

STORED_MAX = 2**63 - 1
"""The largest number that the store takes."""
AFTER_PER_SUBMIT_MAX = 65_536
"""Names in `after` of the tasks of one request: each is a row of the transaction."""
LINE_MAX = 2**53
"""No file has so many lines."""


def check_task(spec: TaskSpec, tenant: str | None, queues: Collection[str]) -> TaskSpec:
    """The task as it is to be stored, for `tenant` if the connection is bound to one; `queues` are
    those there are.

    Raises InvalidRequest naming the field and saying what it should be.
    """
    if len(spec.id) != ID_LENGTH or not spec.id.isalnum():
        raise InvalidRequest(f"id {spec.id[:40]!r} is not {ID_LENGTH} letters and digits")
    if bool(spec.messages) == (spec.prompt is not None):
        raise InvalidRequest("a task has either messages or a prompt")
    check(spec)
    check_known(spec.queue, queues)
    if tenant is not None and spec.tenant != tenant:
        return msgspec.structs.replace(spec, tenant=tenant)
    return spec


def check_count(what: str, count: int) -> None:
    """Raises InvalidRequest for more of something than one transaction takes."""
    if count > TASKS_PER_SUBMIT_MAX:
        raise InvalidRequest(f"one request takes up to {TASKS_PER_SUBMIT_MAX} {what}, not {count}")


def check_after(tasks: Sequence[TaskSpec]) -> None:
    """Raises InvalidRequest when together they wait for more than one transaction can enter."""
    count = sum(len(spec.after) for spec in tasks)
    if count > AFTER_PER_SUBMIT_MAX:
        raise InvalidRequest(
            f"the tasks of one request name up to {AFTER_PER_SUBMIT_MAX} others in `after`,"
            f" not {count}"
        )


def stored(cursor: int) -> int:
    """The cursor, or the nearest one that the store could have given."""
    return min(max(0, cursor), STORED_MAX)


def check_lines(
    lines: Sequence[JobLine], tenant: str | None, queues: Collection[str]
) -> tuple[JobLine, ...]:
    """The lines as they are to be stored: a line that is no task is one that failed.

    Raises InvalidRequest when they are too many, or not numbered upwards from 1.
    """
    check_count("lines", len(lines))
    before = 0
    for line in lines:
        if not before < line.line <= LINE_MAX:
            raise InvalidRequest(f"line {line.line} after line {before}: not numbered upwards")
        before = line.line
    return tuple(_checked(line, tenant, queues) for line in lines)


def _checked(line: JobLine, tenant: str | None, queues: Collection[str]) -> JobLine:
    if line.task is None:
        return line
    try:
        return msgspec.structs.replace(line, task=check_task(line.task, tenant, queues))
    except InvalidRequest as error:
        info = ErrorInfo(error.code, str(error))
        return msgspec.structs.replace(line, task=None, error=info)
