"""Transaction bodies that end tasks, and what the end of one task means to others.

An ending is told to the job lines that wait for the task and to the tasks that come after it: a
success may unblock them, any other end cancels them.
"""

from __future__ import annotations

from autoglm.errors import NotFound
from autoglm.types import ErrorInfo, TaskState
from runtime.store.protocol import (
    Cancellation,
    CancelTasks,
    Ending,
    ReleaseDue,
    StoppedTask,
)
from runtime.store.transaction import Transaction, error_text

CANCEL_SLICE = 500
"""Tasks of a job looked at in one transaction: what the commits behind it wait for."""


def cancel_tasks(tx: Transaction, write: CancelTasks) -> Cancellation:
    if write.job is not None and not _job_exists(tx, write.job, write.tenant):
        raise NotFound(f"no job {write.job}")
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
        "SELECT seq, state, rank, attempt, expires_at FROM task"
        " WHERE wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at",
        (tx.now_ms,),
    ).fetchall()
    for seq, state, rank, attempt, expires_at in rows:
        if expires_at is not None and expires_at <= tx.now_ms:
            error = ErrorInfo("expired", "its `expires` passed before it was answered")
            end_unfinished(tx, seq, TaskState.EXPIRED, error)
        elif state == TaskState.RETRYING:
            tx.cx.execute(
                "UPDATE task SET state = ?, wake_at = expires_at WHERE seq = ?",
                (TaskState.PENDING, seq),
            )
            tx.move(seq, TaskState.RETRYING, TaskState.PENDING, attempt)
            tx.effects.ready.append((rank, seq))
    row = tx.cx.execute(
        "SELECT min(wake_at) FROM task WHERE wake_at IS NOT NULL",
    ).fetchone()
    tx.due(row[0])


def end_unfinished(tx: Transaction, seq: int, state: TaskState, error: ErrorInfo | None) -> int:
    """End a task that nobody answered, wherever it stands. Returns 1, or 0 if it had ended."""
    row = tx.cx.execute(
        "SELECT id, state, attempt, owner, shared FROM task WHERE seq = ?", (seq,)
    ).fetchone()
    id, before, attempt, owner, shared = row
    if TaskState(before).ended:
        return 0
    tx.cx.execute(
        "UPDATE task SET state = ?, owner = NULL, wake_at = NULL, finished_at = ?,"
        " error = coalesce(?, error) WHERE seq = ?",
        (state, tx.now_ms, error_text(error), seq),
    )
    tx.move(seq, TaskState(before), state, attempt)
    if owner is not None:
        tx.effects.stopped.append(StoppedTask(seq, owner))
    tell_end(tx, seq, id, state, shared=bool(shared))
    return 1


def tell_end(tx: Transaction, seq: int, id: str, state: TaskState, *, shared: bool) -> None:
    """Task `seq` has just ended as `state`: pass it on to whoever looks at its end."""
    jobs: tuple[str, ...] = ()
    if shared:
        lines = tx.cx.execute("SELECT job, line FROM job_line WHERE task = ?", (seq,)).fetchall()
        for job, line in lines:
            end_line(tx, job, line)
        jobs = tuple({job for job, _ in lines})
        _tell_blocked(tx, seq, id, state)
    tx.effects.endings.append(Ending(id, jobs))


def end_line(tx: Transaction, job: str, line: int) -> None:
    """Give a job's line its place in the order of endings."""
    (ended,) = tx.cx.execute(
        "UPDATE job SET ended = ended + 1 WHERE id = ? RETURNING ended", (job,)
    ).fetchone()
    tx.cx.execute(
        "UPDATE job_line SET ended = ? WHERE job = ? AND line = ?",
        (ended, job, line),
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
            "UPDATE task SET state = ? WHERE seq = ? AND state = ?"
            " AND NOT EXISTS (SELECT 1 FROM blocker WHERE blocker.task = task.seq)"
            " RETURNING rank, attempt",
            (TaskState.PENDING, task, TaskState.BLOCKED),
        ).fetchone()
        if freed:
            tx.move(task, TaskState.BLOCKED, TaskState.PENDING, freed[1])
            tx.effects.ready.append((freed[0], task))
