"""Another priority or deadline for tasks that wait.

A task keeps its age: its rank is made anew from the moment it was submitted. The event log has the
edit as a step from the state it waits in to the same state, with the person's name; the number of
that event is the task's new version. What runs or has ended is not touched.
"""

from __future__ import annotations

from typing import Any

import msgspec

from autoglm.errors import Conflict, NotFound
from autoglm.types import TaskSpec, TaskState
from runtime.store.protocol import Write
from runtime.store.transaction import Payload, Transaction
from runtime.store.transitions import WAITING
from runtime.store.urgency import inherit


class EditTasks(Write, frozen=True):
    """Edit all of `ids`, or none. Result: None. Raises NotFound, Conflict.

    The same edit once more changes nothing, whatever version it names: its answer was lost.
    """

    tenant: str | None
    """The reach of whoever asks; None: the operator's."""
    ids: tuple[str, ...]
    priority: int | None = None
    """None: as it is."""
    deadline_at: int | None = None
    """None: as it is, or, with `no_deadline`, none."""
    no_deadline: bool = False
    version: int | None = None
    """What the task is to be at; None: whatever it is at."""
    by: str | None = None


class _Row(msgspec.Struct, frozen=True):
    seq: int
    id: str
    state: TaskState
    queue: str
    tenant: str
    kind: str | None
    rank: int
    attempt: int
    last_event: int | None
    created_at: int
    priority: int
    deadline_at: int | None
    body: str


_SELECT = """
SELECT t.seq, t.id, t.state, t.queue, t.tenant, t.kind, t.rank, t.attempt, t.last_event,
       t.created_at, t.priority, t.deadline_at, p.body
FROM task t JOIN payload p ON p.task = t.seq
WHERE t.id = ? AND (? IS NULL OR t.tenant = ?)
"""


def edit_tasks(tx: Transaction, write: EditTasks) -> None:
    tx.by = write.by
    changed: list[tuple[_Row, _Row]] = []
    for id in dict.fromkeys(write.ids):
        found = tx.cx.execute(_SELECT, (id, write.tenant, write.tenant)).fetchone()
        if found is None:
            raise NotFound(f"no task {id}")
        row = _row(found)
        if row.state not in WAITING:
            raise Conflict(f"task {id} is {row.state.value}: only what waits can be edited")
        wanted = _edited(row, write)
        if wanted == row:
            continue
        at = row.last_event or 0
        if write.version is not None and write.version != at:
            raise Conflict(f"task {id} is at version {at}, not {write.version}: look at it again")
        changed.append((row, wanted))
    for row, wanted in changed:
        _change(tx, row, wanted)


def _row(found: Any) -> _Row:
    seq, id, state, *rest = found
    return _Row(seq, id, TaskState(state), *rest)


def _edited(row: _Row, write: EditTasks) -> _Row:
    deadline_at = row.deadline_at if write.deadline_at is None else write.deadline_at
    return msgspec.structs.replace(
        row,
        priority=row.priority if write.priority is None else write.priority,
        deadline_at=None if write.no_deadline else deadline_at,
    )


def _change(tx: Transaction, row: _Row, wanted: _Row) -> None:
    rank = tx.ranking.rank(_spec(wanted), row.created_at)
    event = tx.move(row.seq, row.state, row.state, row.attempt, row.last_event)
    tx.cx.execute(
        "UPDATE task SET priority = ?, deadline_at = ?, rank = ?, last_event = ? WHERE seq = ?",
        (wanted.priority, wanted.deadline_at, rank, event, row.seq),
    )
    rank = inherit(tx, row.seq)
    if row.state is TaskState.PENDING and rank != row.rank:
        tx.gone(row.queue, row.tenant, row.rank, row.seq)
        tx.ready(row.queue, row.tenant, rank, row.seq)
        tx.urgent(row.seq, wanted.priority)


def _spec(row: _Row) -> TaskSpec:
    """The task as if it were handed in so, for whatever the ranking looks at."""
    payload = msgspec.json.decode(row.body, type=Payload)
    return TaskSpec(
        id=row.id,
        messages=payload.messages,
        prompt=payload.prompt,
        sampling=payload.sampling,
        tenant=row.tenant,
        queue=row.queue,
        priority=row.priority,
        kind=row.kind,
        deadline_at=row.deadline_at,
    )
