"""Tasks that wait for others: entered when they are handed in, freed or given up when those end.

One task may be waited for by millions. So an end is told to `TELL_SLICE` of them in the
transaction that ends it, and for the rest there is a row of `telling`: who ended, how, and up to
which task it is to be told, as what is handed in later knows it. The chores do that, slice by
slice, whoever dies meanwhile; those who are not told yet are still blocked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autoglm.graph import AfterFailure
from autoglm.spec import AFTER_FAILURES
from autoglm.types import TaskState
from runtime.store.rows import execute_rows, json_numbers
from runtime.store.transaction import Transaction
from runtime.store.urgency import hand_on

TELL_SLICE = 250
"""Tasks that one write frees or ends because of what they wait for."""

_WAITING = """
SELECT b.task, t.state, t.after_failure, t.queue, t.tenant, t.rank, t.attempt, t.last_event,
       coalesce(t.inherited, t.priority),
       EXISTS (SELECT 1 FROM blocker o WHERE o.task = b.task AND o.upstream != b.upstream)
FROM blocker b CROSS JOIN task t ON t.seq = b.task
WHERE b.upstream = ? AND b.task <= ? ORDER BY b.task LIMIT ?
"""
_LEAVE = """
INSERT INTO telling (seq, upstream, id, state, upto) SELECT ?, ?, ?, ?, ?
WHERE EXISTS (SELECT 1 FROM blocker WHERE upstream = ? AND task <= ?)
"""


class Telling(NamedTuple):
    """An end that those who wait for the task are to be told of."""

    upstream: int
    id: str
    state: TaskState
    upto: int
    """The newest task when it ended: who came later knows of it."""
    seq: int | None = None
    """Of its row, where it has one."""


class Waiting(NamedTuple):
    """A new task that was handed in with `after`."""

    task: int
    after_failure: AfterFailure
    upstream: tuple[int, ...]
    """What it waits for; empty: for nothing any more."""


def block(tx: Transaction, new: Sequence[Waiting]) -> None:
    """Enter what these wait for, and what becomes of them if it fails."""
    if not new:
        return
    rows = [(other, each.task) for each in new for other in each.upstream]
    execute_rows(tx.cx, "INSERT INTO blocker {rows}", rows)
    tx.cx.execute(
        "UPDATE task SET shared = 1 FROM json_each(?) other WHERE seq = other.value AND shared = 0",
        (json_numbers({other for other, _ in rows}),),
    )
    for choice in AFTER_FAILURES:
        tasks = [each.task for each in new if each.after_failure == choice]
        tx.cx.execute(
            "UPDATE task SET after_failure = ? FROM json_each(?) given WHERE seq = given.value",
            (choice, json_numbers(tasks)),
        )
    hand_on(tx, [each.task for each in new if each.upstream])


def tell(tx: Transaction, end: Telling) -> list[int]:
    """Free those who waited for this end alone. Returns those that are to be cancelled for it; for
    the ones there was no room for, a row is left.
    """
    room = TELL_SLICE - tx.told
    if room > 0 and end.seq is None and _is_being_told(tx, end.upstream):
        room = 0  # it ended before: first things first
    rows = tx.cx.execute(_WAITING, (end.upstream, end.upto, room)).fetchall() if room > 0 else []
    tx.told += len(rows)
    if rows:
        tx.cx.execute(
            "DELETE FROM blocker WHERE upstream = ? AND task <= ?", (end.upstream, rows[-1][0])
        )
    if len(rows) >= room:
        _leave(tx, end)
    given_up: list[int] = []
    for task, state, after_failure, *rest, held in rows:
        if state != TaskState.BLOCKED:
            continue  # it was cancelled or expired meanwhile
        if end.state is not TaskState.SUCCEEDED and after_failure != "run":
            given_up.append(task)
        elif not held:
            _free(tx, task, *rest)
    return given_up


def next_to_tell(tx: Transaction) -> Telling | None:
    """An end that was not told to all, if any; its row is gone."""
    row = tx.cx.execute(
        "SELECT upstream, id, state, upto, seq FROM telling ORDER BY seq LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    upstream, id, state, upto, seq = row
    tx.cx.execute("DELETE FROM telling WHERE seq = ?", (seq,))
    return Telling(upstream, id, TaskState(state), upto, seq)


def _is_being_told(tx: Transaction, upstream: int) -> bool:
    found = tx.cx.execute("SELECT 1 FROM telling WHERE upstream = ? LIMIT 1", (upstream,))
    return found.fetchone() is not None


def _leave(tx: Transaction, end: Telling) -> None:
    """The rest is to be told later. A row that goes on keeps its place."""
    left = tx.cx.execute(
        _LEAVE,
        (end.seq, end.upstream, end.id, end.state, end.upto, end.upstream, end.upto),
    )
    if left.rowcount:
        tx.effects.chores = True


def _free(
    tx: Transaction,
    task: int,
    queue: str,
    tenant: str,
    rank: int,
    attempt: int,
    last_event: int,
    priority: int,
) -> None:
    event = tx.move(task, TaskState.BLOCKED, TaskState.PENDING, attempt, last_event)
    tx.cx.execute("UPDATE task SET state = 'pending', last_event = ? WHERE seq = ?", (event, task))
    tx.ready(queue, tenant, rank, task)
    tx.urgent(task, priority)
