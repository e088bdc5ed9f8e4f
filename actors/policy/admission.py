"""Admission: what the server checks before it stores anything. Pure.

Whatever passes here can be stored: every number that goes into a column has been held to its range,
so a write that fails afterwards is the disk's fault or ours, never the client's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from actors.policy.priority import Settle
from autoglm.errors import InvalidRequest
from autoglm.ids import ID_LENGTH
from autoglm.spec import check, check_moment, check_priority
from autoglm.types import ErrorInfo, TaskSpec
from autoglm.wire import TASKS_PER_SUBMIT_MAX, Edit, JobLine
from runtime.queueconfig import check_known
from runtime.store.editing import EditTasks

STORED_MAX = 2**63 - 1
"""The largest number that the store takes."""
AFTER_PER_SUBMIT_MAX = 65_536
"""Names in `after` of the tasks of one request: each is a row of the transaction."""
LINE_MAX = 2**53
"""No file has so many lines."""


def as_given(spec: TaskSpec) -> TaskSpec:
    """No rules."""
    return spec


def check_task(
    spec: TaskSpec, tenant: str | None, queues: Collection[str], settle: Settle = as_given
) -> TaskSpec:
    """The task as it is to be stored, for `tenant` if the connection is bound to one; `queues` are
    those there are, `settle` gives it its priority.

    Raises InvalidRequest naming the field and saying what it should be.
    """
    if len(spec.id) != ID_LENGTH or not spec.id.isalnum():
        raise InvalidRequest(f"id {spec.id[:40]!r} is not {ID_LENGTH} letters and digits")
    if bool(spec.messages) == (spec.prompt is not None):
        raise InvalidRequest("a task has either messages or a prompt")
    check(spec)
    if spec.queue is not None:
        check_known(spec.queue, queues)
    if tenant is not None and spec.tenant != tenant:
        spec = msgspec.structs.replace(spec, tenant=tenant)
    return settle(spec)


def edit_of(request: Edit, ids: tuple[str, ...], tenant: str | None, by: str | None) -> EditTasks:
    """What the request is to the store. Raises InvalidRequest."""
    if not ids:
        raise InvalidRequest("an edit names at least one task")
    if request.priority is None and request.deadline_at is None and not request.no_deadline:
        raise InvalidRequest("say what to change: priority or deadline")
    if request.deadline_at is not None and request.no_deadline:
        raise InvalidRequest("a deadline is given and taken away at once")
    if request.version is not None and len(ids) > 1:
        raise InvalidRequest("a version is that of one task: name one")
    if request.priority is not None:
        check_priority(request.priority)
    check_moment("deadline_at", request.deadline_at)
    change = (request.priority, request.deadline_at, request.no_deadline, request.version)
    return EditTasks(tenant, ids, *change, by)


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
    lines: Sequence[JobLine],
    tenant: str | None,
    queues: Collection[str],
    settle: Settle = as_given,
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
    return tuple(_checked(line, tenant, queues, settle) for line in lines)


def _checked(line: JobLine, tenant: str | None, queues: Collection[str], settle: Settle) -> JobLine:
    if line.task is None:
        return line
    try:
        task = check_task(line.task, tenant, queues, settle)
        return msgspec.structs.replace(line, task=task)
    except InvalidRequest as error:
        info = ErrorInfo(error.code, str(error))
        return msgspec.structs.replace(line, task=None, error=info)
