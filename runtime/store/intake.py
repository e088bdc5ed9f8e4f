"""Transaction bodies that take work in: tasks, jobs and their lines.

Handing the same thing in again changes nothing. An id or a key that is known with the same
content is the same task; with other content it is a conflict and nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec

from autoglm.errors import Conflict, NotFound, ServerBusy
from autoglm.given import priority_of, queue_of
from autoglm.types import Task, TaskSpec, TaskState
from autoglm.wire import Accepted, JobLine
from runtime.store.blocked import Waiting, block
from runtime.store.chores import cancel_later
from runtime.store.content import body_of
from runtime.store.degraded import Stored, answer, refuse_lines, refused
from runtime.store.endings import end_lines
from runtime.store.graphprotocol import InsertGraph, none_of
from runtime.store.jobprotocol import InsertLines, JobOpening, OpenJob
from runtime.store.known import Twins, known_as, names_taken, twins_of, upstream_of
from runtime.store.protocol import InsertTasks
from runtime.store.rows import WAITS_FOR_SHOWN, error_text, execute_rows, insert_rows
from runtime.store.standin import StandIns
from runtime.store.transaction import Transaction
from runtime.store.waiting import Room

DRAINED_RETRY_S = 5.0
_GIVEN = (
    *("seq", "id", "rank", "last_event", "tenant", "queue", "priority", "kind", "key", "stream"),
    *("deadline_at", "expires_at", "wake_at", "begins"),
)
"""Columns of a new task that are its own."""


def insert_tasks(
    tx: Transaction, writes: Sequence[InsertTasks]
) -> list[tuple[Accepted, ...] | ServerBusy]:
    """`writes` stand together in one commit, so the same stands in for the engines in all, and
    the same limits hold. Each is taken whole or refused whole.
    """
    room = Room(tx, writes[0].limits, writes[0].standins)
    refusals = [room.refusal(write.tasks) for write in writes]
    taken = [write for write, refusal in zip(writes, refusals, strict=True) if refusal is None]
    specs = [spec for write in taken for spec in write.tasks]
    accepted = iter([each.accepted for each in _insert(tx, specs, None, writes[0].standins)])
    return [
        tuple(islice(accepted, len(write.tasks))) if refusal is None else refusal
        for write, refusal in zip(writes, refusals, strict=True)
    ]


def insert_graph(tx: Transaction, write: InsertGraph) -> tuple[Accepted, ...]:
    refusal = Room(tx, write.limits, write.standins).refusal(write.tasks)
    if refusal is not None:
        raise refusal
    tx.cx.execute("SAVEPOINT graph")
    accepted = tuple(each.accepted for each in _insert(tx, write.tasks, None, write.standins))
    if any(each.error is not None for each in accepted):
        tx.cx.execute("ROLLBACK TO graph")
        tx.forget()
        accepted = none_of(accepted)
    tx.cx.execute("RELEASE graph")
    return accepted


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
        "SELECT submitted, current, draining FROM job WHERE id = ? AND (? IS NULL OR tenant = ?)",
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
    if fresh and row[2]:
        why = f"job {write.job} is being drained: it takes no more lines until it is resumed"
        raise ServerBusy(why, retry_after=DRAINED_RETRY_S)
    refuse_lines(fresh, write.standins)
    specs = [line.task for line in fresh if line.task is not None and line.error is None]
    refusal = Room(tx, write.limits, write.standins).refusal(specs)
    if refusal is not None:
        raise refusal
    _insert_lines(tx, write.job, fresh, write.standins)
    tx.cx.execute(
        "UPDATE job SET submitted = ?, lines = lines + ?, sealed = max(sealed, ?) WHERE id = ?",
        (submitted, len(fresh), tx.now_ms if write.last else 0, write.job),
    )
    if write.last:
        tx.effects.jobs.add(write.job)
    return submitted


def _insert_lines(tx: Transaction, job: str, lines: Sequence[JobLine], standins: StandIns) -> None:
    specs = [line.task for line in lines if line.task is not None and line.error is None]
    stored = iter(_insert(tx, specs, job, standins))
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


def _insert(
    tx: Transaction, specs: Sequence[TaskSpec], job: str | None, standins: StandIns
) -> list[Stored]:
    """Store the tasks, in order: each sees those before it."""
    if not any(spec.after or spec.key is not None for spec in specs) and _all_distinct(specs):
        return _insert_together(tx, specs, job, standins)
    stored: list[Stored] = []
    together: list[TaskSpec] = []
    names: set[object] = set()
    waiting: list[Waiting] = []
    twins: Twins = {}
    taken: set[object] | None = None
    looked = 0
    for spec in specs:
        mine = {spec.id, (spec.tenant, spec.key)} if spec.key is not None else {spec.id}
        if spec.after or not names.isdisjoint(mine):
            stored += _insert_together(tx, together, job, standins)
            together, names = [], set()
        if spec.after:
            twins |= twins_of(specs[looked : len(stored)], stored[looked:])
            looked = len(stored)
            if taken is None:
                taken = names_taken(tx, specs)
            known = None if taken.isdisjoint(mine) else known_as(tx, spec, body_of(spec))
            stored.append(known or _insert_after(tx, spec, twins, waiting, job, standins))
        else:
            together.append(spec)
            names |= mine
        if taken is not None:
            taken |= mine
    stored += _insert_together(tx, together, job, standins)
    block(tx, waiting)
    return stored


def _all_distinct(specs: Sequence[TaskSpec]) -> bool:
    return len({spec.id for spec in specs}) == len(specs)


def _insert_together(
    tx: Transaction, specs: Sequence[TaskSpec], job: str | None, standins: StandIns
) -> list[Stored]:
    """Store tasks that have nothing to do with each other."""
    if not specs:
        return []
    bodies = [body_of(spec) for spec in specs]
    taken = names_taken(tx, specs)
    if not taken:
        new = list(zip(specs, bodies, strict=True))
        return _insert_new(tx, new, TaskState.PENDING, job, standins)
    known = {
        place: found
        for place, spec in enumerate(specs)
        if (spec.id in taken or (spec.tenant, spec.key) in taken)
        and (found := known_as(tx, spec, bodies[place])) is not None
    }
    new = [each for place, each in enumerate(zip(specs, bodies, strict=True)) if place not in known]
    stored = iter(_insert_new(tx, new, TaskState.PENDING, job, standins))
    return [known[place] if place in known else next(stored) for place in range(len(specs))]


def _insert_after(
    tx: Transaction,
    spec: TaskSpec,
    twins: Twins,
    waiting: list[Waiting],
    job: str | None,
    standins: StandIns,
) -> Stored:
    """Store a new task that comes after others; that it does is added to `waiting`."""
    upstream, refusal = upstream_of(tx, spec, twins)
    if refusal is not None:
        return Stored(Accepted(error=refusal))
    state = TaskState.BLOCKED if upstream else TaskState.PENDING
    (stored,) = _insert_new(tx, [(spec, body_of(spec))], state, job, standins)
    accepted, seq = stored
    if accepted.task is None or seq is None:
        return stored
    waiting.append(Waiting(seq, spec.after_failure, tuple(upstream)))
    shown = tuple(upstream[other] for other in sorted(upstream)[:WAITS_FOR_SHOWN])
    task = msgspec.structs.replace(accepted.task, waits_for=shown)
    return Stored(Accepted(task), seq)


def _insert_new(
    tx: Transaction,
    new: Sequence[tuple[TaskSpec, str]],
    state: TaskState,
    job: str | None,
    standins: StandIns,
) -> list[Stored]:
    """Store tasks, each with its body, that are not known by id or key."""
    at, shared = tx.logical_ms, int(job is not None)
    instead: StandIns = standins if state is TaskState.PENDING else {}  # who is blocked waits
    stored: list[Stored] = []
    rows: list[tuple[object, ...]] = []
    payloads: list[tuple[object, ...]] = []
    for spec, body in new:
        if instead and (refusal := refused(spec, instead)) is not None:
            stored.append(refusal)
            continue
        seq, rank, expires_at = tx.new_task(), tx.ranking.rank(spec, at), spec.expires_at
        event, begins = tx.move(seq, None, state, 0, None), tx.ranking.beginning(spec)
        queue, priority = queue_of(spec), priority_of(spec)
        tenant, kind, key, deadline_at = spec.tenant, spec.kind, spec.key, spec.deadline_at
        stream = int(spec.stream)
        given = (seq, spec.id, rank, event, tenant, queue, priority, kind, key, stream)
        rows.append((*given, deadline_at, expires_at, expires_at, begins))
        payloads.append((seq, body))
        if expires_at is not None:
            tx.due(expires_at)
        if state is TaskState.PENDING:
            tx.ready(queue, tenant, rank, seq)
            if begins is not None:
                tx.effects.begins[seq] = begins
            tx.urgent(seq, priority)
        task = Task(
            *(spec.id, state, tenant, queue, priority, kind, key, job),
            created_at=at,
            deadline_at=deadline_at,
            expires_at=expires_at,
            after_failure=spec.after_failure if spec.after else None,
            version=event,
        )
        stored.append(Stored(Accepted(task), seq))
    together = {"state": state.value, "job": job, "shared": shared, "created_at": at}
    insert_rows(tx.cx, "task", _GIVEN, rows, together)
    insert_rows(tx.cx, "payload", ("task", "body"), payloads)
    return answer(tx, new, stored, instead) if instead else stored
