"""Transaction bodies that end tasks, and what the end of one task means to others.

An ending is told to the job lines that wait for the task and to the tasks that come after it: a
success may unblock them, any other end cancels them, unless they are to run all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from autoglm.errors import NotFound
from autoglm.types import Answer, ErrorInfo, TaskState
from runtime.store import checkpoints
from runtime.store.blocked import Telling, next_to_tell, tell
from runtime.store.named import find_named
from runtime.store.overflow import keep_watch, put_aside, rule_of, why
from runtime.store.protocol import CancelTasks, Ending, Key, ReleaseDue, Settled, StoppedTask
from runtime.store.rows import error_text, json_numbers
from runtime.store.transaction import Transaction

CANCEL_SLICE = 500
"""Tasks of a job looked at in one transaction: what the commits behind it wait for."""
RELEASE_SLICE = 500
"""Tasks that something is due for in one transaction; for the rest, something is due at once."""

# Materialized, or SQLite walks through all lines of the job and looks for each in the list.
_END_LINES = """
WITH given (place, line) AS MATERIALIZED (SELECT key, value FROM json_each(?))
UPDATE job_line SET ended = ? + given.place FROM given
WHERE job_line.job = ? AND job_line.line = given.line
"""


def cancel_tasks(tx: Transaction, write: CancelTasks) -> Settled:
    if write.job is not None and not _job_exists(tx, write.job, write.tenant):
        raise NotFound(f"no job {write.job}")
    tx.by = write.by
    named = find_named(tx, write.ids, write.tenant)
    count, after = 0, None
    for seq, state in named.found:
        if not state.ended:
            count += end_unfinished(tx, seq, TaskState.CANCELLED, None)
    if write.job is not None:
        ended, after = cancel_slice(tx, write.job, write.tenant, write.after)
        count += ended
    return Settled(named.known, named.unknown, count, after)


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
        "SELECT seq, state, queue, tenant, rank, attempt, expires_at, last_event FROM task"
        " WHERE wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at LIMIT ?",
        (tx.now_ms, RELEASE_SLICE),
    ).fetchall()
    late: dict[str, Key] = {}
    for seq, state, queue, tenant, rank, attempt, expires_at, last_event in rows:
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
            tx.ready(queue, tenant, rank, seq)
        else:
            _overflow(tx, (rank, seq), state, queue, attempt, last_event, late)
    for queue, key in late.items():
        keep_watch(tx, queue, key)
    row = tx.cx.execute(
        "SELECT min(wake_at) FROM task WHERE wake_at IS NOT NULL",
    ).fetchone()
    tx.due(row[0])


def _overflow(
    tx: Transaction,
    key: Key,
    state: str,
    queue: str,
    attempt: int,
    last_event: int,
    late: dict[str, Key],
) -> None:
    """The wait of a task is over, if its queue still says so. `late` learns of the last one that
    goes on waiting and has others refused meanwhile.
    """
    rank, seq = key
    rule = rule_of(tx, queue) if state == TaskState.PENDING else None
    if rule is None:
        tx.cx.execute("UPDATE task SET wake_at = expires_at WHERE seq = ?", (seq,))
    elif rule.rule == "archive":
        put_aside(tx, seq, attempt, last_event, rule)
    elif rule.rule == "refuse_lower":
        tx.cx.execute("UPDATE task SET wake_at = expires_at WHERE seq = ?", (seq,))
        late[queue] = max(late.get(queue, (rank, seq)), (rank, seq))
    else:
        end_unfinished(tx, seq, TaskState.EXPIRED, why(rule))


class Ended(NamedTuple):
    """A task that has just ended; `shared`: job lines or other tasks look at its end."""

    seq: int
    id: str
    state: TaskState
    shared: bool
    answer: Answer | None = None


def end_unfinished(tx: Transaction, seq: int, state: TaskState, error: ErrorInfo | None) -> int:
    """End a task that nobody answered, wherever it stands. Returns 1, or 0 if it had ended."""
    ended = _end(tx, seq, state, error)
    if ended is None:
        return 0
    tell_ends(tx, [ended])
    return 1


def tell_ends(tx: Transaction, ended: Sequence[Ended]) -> None:
    """Pass on that these have ended to whoever looks at their ends, and so on down the chains.

    Link by link, not by recursion: a chain may be longer than Python's stack.
    """
    while ended:
        shared = [each for each in ended if each.shared]
        jobs = _tell_lines(tx, shared)
        for each in ended:
            told = tuple(jobs.get(each.seq, ()))
            tx.effects.endings.append(Ending(each.id, told, each.answer))
        upto = tx.newest_task
        ends = [Telling(each.seq, each.id, each.state, upto) for each in shared]
        ended = [each for end in ends for each in _tell_blocked(tx, end)]


def tell_on(tx: Transaction) -> bool:
    """A slice of the tasks that were not told yet of an end. Whether there were any."""
    end = next_to_tell(tx)
    if end is not None:
        tell_ends(tx, _tell_blocked(tx, end))
    return end is not None


def _end(tx: Transaction, seq: int, state: TaskState, error: ErrorInfo | None) -> Ended | None:
    """End a task without telling of it; None if it had ended."""
    row = tx.cx.execute(
        "SELECT id, state, attempt, owner, shared, last_event FROM task WHERE seq = ?", (seq,)
    ).fetchone()
    id, before, attempt, owner, shared, last_event = row
    if TaskState(before).ended:
        return None
    event = tx.move(seq, TaskState(before), state, attempt, last_event)
    tx.cx.execute(
        "UPDATE task SET state = ?, owner = NULL, wake_at = NULL, finished_at = ?,"
        " error = coalesce(?, error), last_event = ? WHERE seq = ?",
        (state, tx.now_ms, error_text(error), event, seq),
    )
    checkpoints.forget(tx, (seq,))
    if owner is not None:
        tx.effects.stopped.append(StoppedTask(seq, owner))
    return Ended(seq, id, state, bool(shared))


def _tell_lines(tx: Transaction, ended: Sequence[Ended]) -> dict[int, set[str]]:
    """End the job lines that wait for these tasks; the jobs, by task."""
    jobs: dict[int, set[str]] = {}
    lines: dict[str, list[int]] = {}
    if ended:
        rows = tx.cx.execute(
            "SELECT l.job, l.line, l.task, l.ended FROM json_each(?) ended"
            " CROSS JOIN job_line l ON l.task = ended.value",
            (json_numbers(each.seq for each in ended),),
        )
        for job, line, seq, place in rows.fetchall():
            jobs.setdefault(seq, set()).add(job)
            if place is None:
                lines.setdefault(job, []).append(line)
            else:
                tx.effects.jobs.add(job)  # a dead letter that was retried: its line keeps its place
    for job, of_job in lines.items():
        end_lines(tx, job, of_job)
    return jobs


def end_lines(tx: Transaction, job: str, lines: Sequence[int]) -> None:
    """Give these lines of a job their places in the order of endings."""
    if not lines:
        return
    (ended,) = tx.cx.execute(
        "UPDATE job SET ended = ended + ? WHERE id = ? RETURNING ended", (len(lines), job)
    ).fetchone()
    tx.cx.execute(_END_LINES, (json_numbers(lines), ended - len(lines) + 1, job))
    tx.effects.jobs.add(job)


def _job_exists(tx: Transaction, job: str, tenant: str | None) -> bool:
    found = tx.cx.execute(
        "SELECT 1 FROM job WHERE id = ? AND (? IS NULL OR tenant = ?)", (job, tenant, tenant)
    )
    return found.fetchone() is not None


def _tell_blocked(tx: Transaction, end: Telling) -> list[Ended]:
    """Free those that waited for this end, or end them; who was ended, of whom nobody was told."""
    given_up = tell(tx, end)
    why = f"task {end.id}, which it waits for, is {end.state.value}"
    error = ErrorInfo("upstream_failed", why)
    ended = [_end(tx, task, TaskState.CANCELLED, error) for task in given_up]
    return [each for each in ended if each is not None]
