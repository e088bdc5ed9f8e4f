"""Transaction bodies that take work in: tasks, jobs and their lines.

Handing the same thing in again changes nothing. An id or a key that is known with the same
content is the same task; with other content it is a conflict and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import json

from autoglm.errors import Conflict, NotFound
from autoglm.types import ErrorInfo, Task, TaskSpec, TaskState
from autoglm.wire import Accepted, JobLine
from runtime.store.chores import cancel_later, free_key
from runtime.store.endings import end_lines
from runtime.store.protocol import InsertLines, InsertTasks, JobOpening, OpenJob
from runtime.store.transaction import (
    TASK_COLUMNS,
    Payload,
    Transaction,
    all_rows,
    error_text,
    execute_rows,
    task_of,
)

_encode = json.Encoder().encode
_decode = json.Decoder(Payload).decode

_INSERT_TASKS = """
INSERT INTO task (seq, id, state, rank, last_event, tenant, queue, priority, kind, key, job,
                  stream, shared, created_at, deadline_at, expires_at, wake_at)
{rows}
"""


def insert_tasks(tx: Transaction, writes: Sequence[InsertTasks]) -> list[tuple[Accepted, ...]]:
    stored = iter(_insert(tx, [spec for write in writes for spec in write.tasks], None))
    return [tuple(next(stored).accepted for _ in write.tasks) for write in writes]


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
    fresh: list[JobLine] = []
    for line in write.lines:
        if line.line > submitted:
            fresh.append(line)
            submitted = line.line
    _insert_lines(tx, write.job, fresh)
    tx.cx.execute(
        "UPDATE job SET submitted = ?, lines = lines + ?, sealed = max(sealed, ?) WHERE id = ?",
        (submitted, len(fresh), tx.now_ms if write.last else 0, write.job),
    )
    if write.last:
        tx.effects.jobs.add(write.job)
    return submitted


def _insert_lines(tx: Transaction, job: str, lines: Sequence[JobLine]) -> None:
    specs = [line.task for line in lines if line.task is not None and line.error is None]
    stored = iter(_insert(tx, specs, job))
    rows: list[tuple[object, ...]] = []
    ended: list[int] = []
    for line in lines:
        seq, error, open_ = None, line.error, False
        if line.task is not None and error is None:
            accepted, seq = next(stored)
            error = accepted.error
            open_ = accepted.task is not None and not accepted.task.state.ended
            if accepted.duplicate:
                tx.cx.execute("UPDATE task SET shared = 1 WHERE seq = ?", (seq,))
        rows.append((job, line.line, line.custom_id, line.url, seq, error_text(error)))
        if not open_:
            ended.append(line.line)
    execute_rows(
        tx.cx, "INSERT INTO job_line (job, line, custom_id, url, task, error) {rows}", rows
    )
    end_lines(tx, job, ended)


class _Stored(NamedTuple):
    """What became of a task that was handed in, and its number if it is in the store."""

    accepted: Accepted
    seq: int | None = None


def _insert(tx: Transaction, specs: Iterable[TaskSpec], job: str | None) -> list[_Stored]:
    """Store the tasks, in order: each sees those before it."""
    stored: list[_Stored] = []
    together: list[TaskSpec] = []
    names: set[object] = set()
    for spec in specs:
        mine = {spec.id, (spec.tenant, spec.key)} if spec.key is not None else {spec.id}
        if spec.after or not names.isdisjoint(mine):
            stored += _insert_together(tx, together, job)
            together, names = [], set()
        if spec.after:
            stored.append(_insert_after(tx, spec, job))
        else:
            together.append(spec)
            names |= mine
    return stored + _insert_together(tx, together, job)


def _insert_together(tx: Transaction, specs: Sequence[TaskSpec], job: str | None) -> list[_Stored]:
    """Store tasks that have nothing to do with each other."""
    if not specs:
        return []
    bodies = [_body(spec) for spec in specs]
    taken = _names_taken(tx, specs)
    known = {
        place: found
        for place, spec in enumerate(specs)
        if (spec.id in taken or (spec.tenant, spec.key) in taken)
        and (found := _known(tx, spec, bodies[place])) is not None
    }
    new = [each for place, each in enumerate(zip(specs, bodies, strict=True)) if place not in known]
    stored = iter(_insert_new(tx, new, TaskState.PENDING, job))
    return [known[place] if place in known else next(stored) for place in range(len(specs))]


def _insert_after(tx: Transaction, spec: TaskSpec, job: str | None) -> _Stored:
    """Store a task that comes after others."""
    body = _body(spec)
    known = _known(tx, spec, body)
    if known is not None:
        return known
    upstream, refusal = _upstream(tx, spec)
    if refusal is not None:
        return _Stored(Accepted(error=refusal))
    state = TaskState.BLOCKED if upstream else TaskState.PENDING
    (stored,) = _insert_new(tx, [(spec, body)], state, job)
    for other in upstream:
        tx.cx.execute("INSERT OR IGNORE INTO blocker VALUES (?, ?)", (other, stored.seq))
        tx.cx.execute("UPDATE task SET shared = 1 WHERE seq = ?", (other,))
    return stored


def _insert_new(
    tx: Transaction, new: Sequence[tuple[TaskSpec, str]], state: TaskState, job: str | None
) -> list[_Stored]:
    """Store tasks, each with its body, that are not known by id or key."""
    at, shared = tx.logical_ms, int(job is not None)
    stored: list[_Stored] = []
    rows: list[tuple[object, ...]] = []
    payloads: list[tuple[object, ...]] = []
    for spec, body in new:
        seq, rank, expires_at = tx.new_task(), tx.rank_of(spec, at), spec.expires_at
        event = tx.move(seq, None, state, 0, None)
        rows.append(
            (
                *(seq, spec.id, state, rank, event, spec.tenant, spec.queue, spec.priority),
                *(spec.kind, spec.key, job, int(spec.stream), shared, at),
                *(spec.deadline_at, expires_at, expires_at),
            )
        )
        payloads.append((seq, body))
        if expires_at is not None:
            tx.due(expires_at)
        if state is TaskState.PENDING:
            tx.ready(spec.queue, spec.tenant, rank, seq)
        task = Task(
            *(spec.id, state, spec.tenant, spec.queue, spec.priority, spec.kind, spec.key, job),
            created_at=at,
            deadline_at=spec.deadline_at,
            expires_at=expires_at,
        )
        stored.append(_Stored(Accepted(task), seq))
    execute_rows(tx.cx, _INSERT_TASKS, rows)
    execute_rows(tx.cx, "INSERT INTO payload {rows}", payloads)
    return stored


def _body(spec: TaskSpec) -> str:
    limits = (spec.max_attempts, spec.attempt_timeout_s)
    return _encode(Payload(spec.messages, spec.prompt, spec.sampling, *limits)).decode()


def _same_content(body: str, other: str) -> bool:
    """Whether two payloads ask for the same, whatever limits their attempts have."""
    if body == other:
        return True
    one, two = _decode(body), _decode(other)
    return (one.messages, one.prompt, one.sampling) == (two.messages, two.prompt, two.sampling)


def _names_taken(tx: Transaction, specs: Sequence[TaskSpec]) -> set[object]:
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


def _known(tx: Transaction, spec: TaskSpec, body: str) -> _Stored | None:
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
        if _same_content(known, body) or (original and _same_content(original, body)):
            return _Stored(Accepted(task_of(row), duplicate=True), seq)
        return _Stored(Accepted(error=_conflict(column, value)))
    if tx.cx.execute("SELECT 1 FROM task WHERE id = ?", (spec.id,)).fetchone():
        return _Stored(Accepted(error=_conflict("id", spec.id)))
    return None


def _original(tx: Transaction, seq: int) -> str | None:
    """What the task was handed in with, if somebody edited it: repeating that is no conflict."""
    row = tx.cx.execute("SELECT body FROM original WHERE task = ?", (seq,)).fetchone()
    return row[0] if row else None


def _conflict(column: str, value: str) -> ErrorInfo:
    return ErrorInfo("conflict", f"{column} {value} is taken by a task with other content")
