"""What the store knows already of a task that is handed in: by its id, by its key, by what it waits
for. Handing in the same again changes nothing; the same name with other content is a conflict.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import json

from autoglm.types import ErrorInfo, TaskSpec, TaskState
from autoglm.wire import Accepted
from runtime.store.chores import free_key
from runtime.store.content import same_content
from runtime.store.degraded import Stored
from runtime.store.rows import TASK_COLUMNS, all_rows, task_of
from runtime.store.transaction import Transaction

_encode = json.Encoder().encode
Twins = dict[tuple[str, str], str]
"""By tenant and id: tasks that were handed in under another id before."""


def names_taken(tx: Transaction, specs: Sequence[TaskSpec]) -> set[object]:
    """Of their ids and `(tenant, key)` pairs, those that a task in the store has."""
    ids = _encode([spec.id for spec in specs]).decode()
    found: set[object] = set(
        json.decode(
            all_rows(
                tx.cx,
                "SELECT json_group_array(t.id) FROM json_each(?) given"
                " CROSS JOIN task t ON t.id = given.value",
                (ids,),
            )
        )
    )
    pairs = [(spec.tenant, spec.key) for spec in specs if spec.key is not None]
    if pairs:
        rows = all_rows(
            tx.cx,
            "SELECT json_group_array(json_array(t.tenant, t.key)) FROM json_each(?) given"
            " CROSS JOIN task t ON t.tenant = given.value ->> 0 AND t.key = given.value ->> 1",
            (_encode(pairs).decode(),),
        )
        found.update((tenant, key) for tenant, key in json.decode(rows))
    return found


def will_be_free(tx: Transaction, spec: TaskSpec) -> bool:
    """Whether the key of `spec` is of a task that would give it up (see `free_key`)."""
    row = tx.cx.execute(
        "SELECT 1 FROM task WHERE tenant = ? AND key = ?"
        " AND (EXISTS (SELECT 1 FROM job WHERE job.id = task.job AND current = 0)"
        " OR EXISTS (SELECT 1 FROM chore WHERE chore.job = task.job))",
        (spec.tenant, spec.key),
    ).fetchone()
    return row is not None


def twins_of(specs: Sequence[TaskSpec], stored: Sequence[Stored]) -> Twins:
    """Of those that are the same as a task of another id, as their keys say."""
    return {
        (spec.tenant, spec.id): each.accepted.task.id
        for spec, each in zip(specs, stored, strict=True)
        if each.accepted.task is not None and each.accepted.task.id != spec.id
    }


def upstream_of(
    tx: Transaction, spec: TaskSpec, twins: Twins
) -> tuple[dict[int, str], ErrorInfo | None]:
    """The unfinished tasks that `spec` waits for, number and id, or why it can't."""
    ids = [twins.get((spec.tenant, id), id) for id in spec.after]
    rows = tx.cx.execute(
        "SELECT t.id, t.seq, t.state FROM json_each(?) given"
        " CROSS JOIN task t ON t.id = given.value WHERE t.tenant = ?",
        (_encode(ids).decode(), spec.tenant),
    ).fetchall()
    found = {id: (seq, TaskState(state)) for id, seq, state in rows}
    waiting: dict[int, str] = {}
    for name, id in zip(spec.after, ids, strict=True):
        if id not in found:
            return {}, ErrorInfo("not_found", f"after {name}: no such task")
        seq, state = found[id]
        if not state.ended:
            waiting[seq] = id
        elif state is not TaskState.SUCCEEDED and spec.after_failure != "run":
            return {}, ErrorInfo("upstream_failed", f"after {name}: it ended as {state.value}")
    return waiting, None


def known_as(tx: Transaction, spec: TaskSpec, body: str) -> Stored | None:
    """The task that holds this id or key already, or the conflict; None when neither is known."""
    free_key(tx, spec)
    for column, value in (("id", spec.id), ("key", spec.key)):
        if value is None:
            continue
        row = tx.cx.execute(
            f"SELECT {TASK_COLUMNS}, t.seq, p.body FROM task t JOIN payload p ON p.task = t.seq"  # noqa: S608
            f" WHERE t.{column} = ? AND t.tenant = ?",
            (value, spec.tenant),
        ).fetchone()
        if row is None:
            continue
        *_, seq, known = row
        original = _original(tx, seq)
        if same_content(known, body) or (original and same_content(original, body)):
            return Stored(Accepted(task_of(row), duplicate=True), seq)
        return Stored(Accepted(error=_conflict(column, value)))
    if tx.cx.execute("SELECT 1 FROM task WHERE id = ?", (spec.id,)).fetchone():
        return Stored(Accepted(error=_conflict("id", spec.id)))
    return None


def _original(tx: Transaction, seq: int) -> str | None:
    """What the task was handed in with, if somebody edited it: repeating that is no conflict."""
    row = tx.cx.execute("SELECT body FROM original WHERE task = ?", (seq,)).fetchone()
    return row[0] if row else None


def _conflict(column: str, value: str) -> ErrorInfo:
    return ErrorInfo("conflict", f"{column} {value} is taken by a task with other content")
