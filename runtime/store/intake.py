"""Transaction bodies that take work in: tasks, jobs and their lines.

Handing the same thing in again changes nothing. An id or a key that is known with the same
content is the same task; with other content it is a conflict and nothing is stored.
"""

from __future__ import annotations

import msgspec

from autoglm.errors import Conflict, NotFound
from autoglm.types import ErrorInfo, Task, TaskSpec, TaskState
from autoglm.wire import Accepted, JobLine
from runtime.store.chores import cancel_later, free_key
from runtime.store.endings import end_line
from runtime.store.protocol import InsertLines, InsertTasks, JobOpening, OpenJob
from runtime.store.transaction import TASK_COLUMNS, Payload, Transaction, error_text, task_of

_encode = msgspec.json.Encoder().encode

_INSERT_TASK = """
INSERT INTO task (seq, id, state, rank, tenant, queue, priority, kind, key, job, stream, shared,
                  created_at, deadline_at, expires_at, wake_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""


def insert_tasks(tx: Transaction, write: InsertTasks) -> tuple[Accepted, ...]:
    return tuple(_insert(tx, spec, None)[0] for spec in write.tasks)


def open_job(tx: Transaction, write: OpenJob) -> JobOpening:
    row = tx.cx.execute(
        "SELECT id, input_hash, options_hash, submitted, sealed FROM job"
        " WHERE tenant = ? AND output = ? AND current = 1",
        (write.tenant, write.output),
    ).fetchone()
    if row and not write.fresh:
        if row[1:3] != (write.input_hash, write.options_hash):
            what = "input" if row[1] != write.input_hash else "options"
            raise Conflict(
                f"{write.output} belongs to a job with other {what};"
                " give another output, or --fresh to start over",
            )
        return JobOpening(row[0], row[3], bool(row[4]), resumed=True)
    if row and row[0] != write.id:
        tx.cx.execute("UPDATE job SET current = 0 WHERE id = ?", (row[0],))
        cancel_later(tx, row[0])
    tx.cx.execute(
        "INSERT INTO job (id, tenant, output, input_hash, options_hash, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (write.id, write.tenant, write.output, write.input_hash, write.options_hash, tx.now_ms),
    )
    return JobOpening(write.id, 0, sealed=False, resumed=False)


def insert_lines(tx: Transaction, write: InsertLines) -> int:
    """Lines come in order, so those up to the last one stored are repeats and passed over."""
    row = tx.cx.execute(
        "SELECT submitted, current FROM job WHERE id = ? AND (? IS NULL OR tenant = ?)",
        (write.job, write.tenant, write.tenant),
    ).fetchone()
    if row is None:
        raise NotFound(f"no job {write.job}")
    if not row[1]:
        raise Conflict(f"job {write.job} was started over: its output belongs to another job now")
    submitted = int(row[0])
    fresh = [line for line in write.lines if line.line > submitted]
    for line in fresh:
        _insert_line(tx, write.job, line)
        submitted = line.line
    tx.cx.execute(
        "UPDATE job SET submitted = ?, lines = lines + ?, sealed = max(sealed, ?) WHERE id = ?",
        (submitted, len(fresh), tx.now_ms if write.last else 0, write.job),
    )
    if write.last:
        tx.effects.jobs.add(write.job)
    return submitted


def _insert_line(tx: Transaction, job: str, line: JobLine) -> None:
    seq, error, ended = None, line.error, True
    if line.task is not None and error is None:
        accepted, seq = _insert(tx, line.task, job)
        error = accepted.error
        ended = accepted.task is None or accepted.task.state.ended
        if accepted.duplicate:
            tx.cx.execute("UPDATE task SET shared = 1 WHERE seq = ?", (seq,))
    tx.cx.execute(
        "INSERT INTO job_line (job, line, custom_id, url, task, error) VALUES (?, ?, ?, ?, ?, ?)",
        (job, line.line, line.custom_id, line.url, seq, error_text(error)),
    )
    if ended:
        end_line(tx, job, line.line)


def _insert(tx: Transaction, spec: TaskSpec, job: str | None) -> tuple[Accepted, int | None]:
    body = _encode(Payload(spec.messages, spec.prompt, spec.sampling)).decode()
    upstream, refusal = _upstream(tx, spec)
    if refusal is not None:
        free_key(tx, spec)
        known = _known(tx, spec, body)
        return known if known is not None else (Accepted(error=refusal), None)
    state = TaskState.BLOCKED if upstream else TaskState.PENDING
    seq, rank, at = tx.new_task(), tx.rank_of(spec, tx.logical_ms), tx.logical_ms
    inserted = tx.cx.execute(
        _INSERT_TASK,
        (
            *(seq, spec.id, state, rank, spec.tenant, spec.queue, spec.priority, spec.kind),
            *(spec.key, job, int(spec.stream), int(job is not None), at),
            *(spec.deadline_at, spec.expires_at, spec.expires_at),
        ),
    )
    if inserted.rowcount == 0:
        if free_key(tx, spec):
            return _insert(tx, spec, job)
        known = _known(tx, spec, body)
        assert known is not None, "an insert conflicted with nothing"
        return known
    tx.cx.execute("INSERT INTO payload VALUES (?, ?)", (seq, body))
    tx.move(seq, None, state, 0)
    tx.due(spec.expires_at)
    for other in upstream:
        tx.cx.execute("INSERT OR IGNORE INTO blocker VALUES (?, ?)", (other, seq))
        tx.cx.execute("UPDATE task SET shared = 1 WHERE seq = ?", (other,))
    if state is TaskState.PENDING:
        tx.effects.ready.append((rank, seq))
    task = Task(
        spec.id,
        state,
        spec.tenant,
        spec.queue,
        spec.priority,
        spec.kind,
        spec.key,
        job,
        created_at=at,
        deadline_at=spec.deadline_at,
        expires_at=spec.expires_at,
    )
    return Accepted(task), seq


def _upstream(tx: Transaction, spec: TaskSpec) -> tuple[list[int], ErrorInfo | None]:
    """The unfinished tasks that `spec` waits for, or why it can't."""
    waiting: list[int] = []
    for id in spec.after:
        row = tx.cx.execute(
            "SELECT seq, state FROM task WHERE id = ? AND tenant = ?", (id, spec.tenant)
        ).fetchone()
        if row is None:
            return [], ErrorInfo("not_found", f"after {id}: no such task")
        state = TaskState(row[1])
        if state.ended and state is not TaskState.SUCCEEDED:
            return [], ErrorInfo("upstream_failed", f"after {id}: it ended as {state.value}")
        if not state.ended:
            waiting.append(row[0])
    return waiting, None


def _known(tx: Transaction, spec: TaskSpec, body: str) -> tuple[Accepted, int | None] | None:
    """The task that holds this id or key already, or the conflict; None when neither is known."""
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
        if known == body:
            return Accepted(task_of(row), duplicate=True), seq
        return Accepted(error=_conflict(column, value)), None
    if tx.cx.execute("SELECT 1 FROM task WHERE id = ?", (spec.id,)).fetchone():
        return Accepted(error=_conflict("id", spec.id)), None
    return None


def _conflict(column: str, value: str) -> ErrorInfo:
    return ErrorInfo("conflict", f"{column} {value} is taken by a task with other content")
