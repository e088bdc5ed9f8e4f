"""Transaction bodies that end tasks, and what the end of one task means to others.

An ending is told to the job lines that wait for the task and to the tasks that come after it: a
success may unblock them, any other end cancels them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autoglm.errors import NotFound
from autoglm.types import Answer, ErrorInfo, TaskState
from runtime.store.protocol import (
    Cancellation,
    CancelTasks,
    Ending,
    ReleaseDue,
    StoppedTask,
)
from runtime.store.transaction import (
    Transaction,
    error_text,
    json_numbers,
)

CANCEL_SLICE = 500
"""Tasks of a job looked at in one transaction: what the commits behind it wait for."""


def cancel_tasks(tx: Transaction, write: CancelTasks) -> Cancellation:
    if write.job is not None and not _job_exists(tx, write.job, write.tenant):
        raise NotFound(f"no job {write.job}")
    tx.by = write.by
    known: list[str] = []
    unknown: list[str] = []
    count = 0
    for id in write.ids:
        row = tx.cx.execute(
            "SELECT seq, state FROM task WHERE id = ? AND (? IS NULL OR tenant = ?)",
            (id, write.tenant, write.tenant),
        ).fetchone()
        (known if row else unknown).append(id)
        if row and not TaskState(row[1]).ended:
            end_unfinished(tx, row[0], TaskState.CANCELLED, None)
            count += 1
    after: int | None = None
    if write.job is not None:
        ended, after = cancel_slice(tx, write.job, write.tenant, write.after)
        count += ended
    return Cancellation(tuple(known), tuple(unknown), count, after)


def cancel_slice(
    tx: Transaction, job: str, tenant: str | None, after: int
) -> tuple[int, int | None]:
    """Cancel what is open among the tasks of a job behind `after`, `CANCEL_SLICE` of them.

    How many that were, and behind which one to go on; None: these were the last.
    """
    rows = tx.cx.execute(
        "SELECT seq, state FROM task WHERE job = ? AND seq > ? AND (? IS NULL OR tenant = ?)"
        " ORDER BY seq LIMIT ?",
        (job, after, tenant, tenant, CANCEL_SLICE),
    ).fetchall()
    count = sum(
        end_unfinished(tx, seq, TaskState.CANCELLED, None)
        for seq, state in rows
        if not TaskState(state).ended
    )
    return count, rows[-1][0] if len(rows) == CANCEL_SLICE else None


def release_due(tx: Transaction, _write: ReleaseDue) -> None:
    rows = tx.cx.execute(
        "SELECT seq, state, rank, attempt, expires_at, last_event FROM task"
        " WHERE wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at",
        (tx.now_ms,),
    ).fetchall()
    for seq, state, rank, attempt, expires_at, last_event in rows:
        if expires_at is not None and expires_at <= tx.now_ms:
            error = ErrorInfo("expired", "its `expires` passed before it was answered")
            end_unfinished(tx, seq, TaskState.EXPIRED, error)
        elif state == TaskState.RETRYING:
            event = tx.move(seq, TaskState.RETRYING, TaskState.PENDING, attempt, last_event)
            tx.cx.execute(
                "UPDATE task SET state = 'pending', wake_at = expires_at, last_event = ?"
                " WHERE seq = ?",
                (event, seq),
            )
            tx.effects.ready.append((rank, seq))
    row = tx.cx.execute(
        "SELECT min(wake_at) FROM task WHERE wake_at IS NOT NULL",
    ).fetchone()
    tx.due(row[0])


class Ended(NamedTuple):
    """A task that has just ended; `shared`: job lines or other tasks look at its end."""

    seq: int
    id: str
    state: TaskState
    shared: bool
    answer: Answer | None = None


def end_unfinished(tx: Transaction, seq: int, state: TaskState, error: ErrorInfo | None) -> int:
    """End a task that nobody answered, wherever it stands. Returns 1, or 0 if it had ended."""
    row = tx.cx.execute(
        "SELECT id, state, attempt, owner, shared, last_event FROM task WHERE seq = ?", (seq,)
    ).fetchone()
    id, before, attempt, owner, shared, last_event = row
    if TaskState(before).ended:
        return 0
    event = tx.move(seq, TaskState(before), state, attempt, last_event)
    tx.cx.execute(
        "UPDATE task SET state = ?, owner = NULL, wake_at = NULL, finished_at = ?,"
        " error = coalesce(?, error), last_event = ? WHERE seq = ?",
        (state, tx.now_ms, error_text(error), event, seq),
    )
    if owner is not None:
        tx.effects.stopped.append(StoppedTask(seq, owner))
    tell_ends(tx, [Ended(seq, id, state, bool(shared))])
    return 1


def tell_ends(tx: Transaction, ended: Sequence[Ended]) -> None:
    """Pass on that these have ended to whoever looks at their ends."""
    shared = [each for each in ended if each.shared]
    jobs: dict[int, set[str]] = {}
    lines: dict[str, list[int]] = {}
    if shared:
        rows = tx.cx.execute(
            "SELECT l.job, l.line, l.task, l.ended FROM json_each(?) ended"
            " CROSS JOIN job_line l ON l.task = ended.value",
            (json_numbers(each.seq for each in shared),),
        )
        for job, line, seq, place in rows.fetchall():
            jobs.setdefault(seq, set()).add(job)
            if place is None:
                lines.setdefault(job, []).append(line)
            else:
                tx.effects.jobs.add(job)  # a dead letter that was retried: its line keeps its place
    for job, of_job in lines.items():
        end_lines(tx, job, of_job)
    for each in ended:
        told = tuple(jobs.get(each.seq, ()))
        tx.effects.endings.append(Ending(each.id, told, each.answer))
    for each in shared:
        _tell_blocked(tx, each.seq, each.id, each.state)


def end_lines(tx: Transaction, job: str, lines: Sequence[int]) -> None:
    """Give these lines of a job their places in the order of endings."""
    if not lines:
        return
    (ended,) = tx.cx.execute(
        "UPDATE job SET ended = ended + ? WHERE id = ? RETURNING ended", (len(lines), job)
    ).fetchone()
    tx.cx.execute(
        "UPDATE job_line SET ended = ? + given.key FROM json_each(?) given"
        " WHERE job = ? AND line = given.value",
        (ended - len(lines) + 1, json_numbers(lines), job),
    )
    tx.effects.jobs.add(job)


def _job_exists(tx: Transaction, job: str, tenant: str | None) -> bool:
    found = tx.cx.execute(
        "SELECT 1 FROM job WHERE id = ? AND (? IS NULL OR tenant = ?)", (job, tenant, tenant)
    )
    return found.fetchone() is not None


def _tell_blocked(tx: Transaction, upstream: int, id: str, state: TaskState) -> None:
    rows = tx.cx.execute("SELECT task FROM blocker WHERE upstream = ?", (upstream,)).fetchall()
    if not rows:
        return
    tx.cx.execute("DELETE FROM blocker WHERE upstream = ?", (upstream,))
    for (task,) in rows:
        if state is not TaskState.SUCCEEDED:
            error = ErrorInfo("upstream_failed", f"task {id}, which it waits for, is {state.value}")
            end_unfinished(tx, task, TaskState.CANCELLED, error)
            continue
        freed = tx.cx.execute(
            "SELECT rank, attempt, last_event FROM task WHERE seq = ? AND state = 'blocked'"
            " AND NOT EXISTS (SELECT 1 FROM blocker WHERE blocker.task = task.seq)",
            (task,),
        ).fetchone()
        if freed:
            rank, attempt, last_event = freed
            event = tx.move(task, TaskState.BLOCKED, TaskState.PENDING, attempt, last_event)
            tx.cx.execute(
                "UPDATE task SET state = 'pending', last_event = ? WHERE seq = ?", (event, task)
            )
            tx.effects.ready.append((rank, task))
