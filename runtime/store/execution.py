"""Transaction bodies around one attempt: claim it, record how it ended, put it back.

The fence: an outcome is written only while its task is running under the very attempt that made
it. Whoever comes late, after a cancellation, an expiry or a newer attempt, writes nothing.
"""

from __future__ import annotations

import msgspec

from autoglm.graph import AfterFailure
from autoglm.types import Answer, ErrorInfo, Task, TaskState
from runtime.partial import Partial
from runtime.store import checkpoints, same
from runtime.store.endings import Ended, tell_ends
from runtime.store.protocol import (
    Answered,
    ClaimedTask,
    ClaimTasks,
    Outcome,
    PutBack,
    RecordOutcomes,
)
from runtime.store.rows import (
    all_rows,
    error_of,
    error_text,
    execute_rows,
    json_numbers,
    more_text,
)
from runtime.store.transaction import Payload, Transaction

ENGINE_DIED = ErrorInfo("engine_died", "the engine died while it ran; nothing was charged")
"""What is noted of an attempt that was cut short so."""


class _Claimable(msgspec.Struct, array_like=True):
    seq: int
    id: str
    attempt: int
    failures: int
    deaths: int
    priority: int
    rank: int
    stream: int
    last_event: int
    queue: str
    tenant: str
    payload: Payload
    continued: Partial | None


class _Running(msgspec.Struct, array_like=True):
    """A row of the task an outcome is of; `task` holds the fields that its end leaves alone."""

    seq: int
    attempt: int
    failures: int
    rank: int
    shared: int
    last_event: int
    error: str | None
    id: str
    tenant: str
    queue: str
    priority: int
    kind: str | None
    key: str | None
    job: str | None
    created_at: int
    started_at: int | None
    deadline_at: int | None
    expires_at: int | None
    after_failure: AfterFailure | None
    inherited: int | None


_decode_claimable = msgspec.json.Decoder(list[_Claimable]).decode
_decode_running = msgspec.json.Decoder(list[_Running]).decode

_SELECT_CLAIMABLE = """
SELECT json_group_array(json_array(t.seq, t.id, t.attempt, t.failures, t.deaths,
                                   coalesce(t.inherited, t.priority), t.rank, t.stream,
                                   t.last_event, t.queue, t.tenant, json(p.body), json(c.body)))
FROM json_each(?) wanted CROSS JOIN task t ON t.seq = wanted.value
JOIN payload p ON p.task = t.seq LEFT JOIN checkpoint c ON c.task = t.seq
WHERE t.state = 'pending' AND t.queue NOT IN (SELECT queue FROM queue_paused WHERE NOT draining)
"""
_CLAIM = """
UPDATE task SET state = 'running', attempt = attempt + 1, owner = ?, started_at = ?,
                last_event = ? + claimed.key, wake_at = expires_at
FROM json_each(?) claimed WHERE seq = claimed.value AND state = 'pending'
"""
_SELECT_RUNNING = """
SELECT json_group_array(json_array(t.seq, t.attempt, t.failures, t.rank, t.shared, t.last_event,
                                   t.error, t.id, t.tenant, t.queue, t.priority, t.kind, t.key,
                                   t.job, t.created_at, t.started_at, t.deadline_at, t.expires_at,
                                   t.after_failure, t.inherited))
FROM json_each(?) wanted CROSS JOIN task t ON t.seq = wanted.value
WHERE t.state = 'running'
"""
_RECORD = """
WITH outcome (of, attempt, state, charged, died, finished_at, error, wake_at, event) AS ({rows})
UPDATE task SET state = outcome.state, owner = NULL, failures = failures + charged,
                deaths = deaths + died, finished_at = outcome.finished_at,
                error = coalesce(outcome.error, task.error), wake_at = outcome.wake_at,
                last_event = event
FROM outcome WHERE seq = of AND task.state = 'running' AND task.attempt = outcome.attempt
"""


def claim_tasks(tx: Transaction, write: ClaimTasks) -> tuple[ClaimedTask, ...]:
    rows = _decode_claimable(all_rows(tx.cx, _SELECT_CLAIMABLE, (json_numbers(write.seqs),)))
    if not rows:
        return ()
    claimed: list[ClaimedTask] = []
    first = tx.next_event
    for row in rows:
        attempt, payload = row.attempt + 1, row.payload
        tx.move(row.seq, TaskState.PENDING, TaskState.RUNNING, attempt, row.last_event)
        claimed.append(
            ClaimedTask(
                *(row.seq, row.id, attempt, row.failures, row.deaths, row.priority, row.rank),
                *(bool(row.stream), payload.messages, payload.prompt, payload.sampling),
                *(payload.max_attempts, payload.attempt_timeout_s, (row.queue, row.tenant)),
                row.continued,
            )
        )
    seqs = json_numbers(row.seq for row in rows)
    tx.cx.execute(_CLAIM, (write.owner, tx.now_ms, first, seqs))
    return tuple(claimed)


def record_outcomes(tx: Transaction, write: RecordOutcomes) -> int:
    wanted = json_numbers(outcome.seq for outcome in write.outcomes)
    running = {
        (row.seq, row.attempt): row
        for row in _decode_running(all_rows(tx.cx, _SELECT_RUNNING, (wanted,)))
    }
    updates: list[tuple[object, ...]] = []
    results: list[tuple[object, ...]] = []
    failures: list[tuple[object, ...]] = []
    partials: list[tuple[int, Partial]] = []
    over: list[int] = []
    ends: list[Ended] = []
    for outcome in write.outcomes:
        row = running.pop((outcome.seq, outcome.attempt), None)
        if row is None:
            continue
        state = outcome.state
        event = tx.move(
            row.seq, TaskState.RUNNING, state, row.attempt, row.last_event, outcome.usage
        )
        wake_at = _wake_at(tx, outcome, row.expires_at)
        tx.due(wake_at)
        updates.append(
            (
                *(row.seq, row.attempt, state, int(outcome.charged), int(outcome.died)),
                *(tx.now_ms if state.ended else None, error_text(outcome.error), wake_at, event),
            )
        )
        if state is TaskState.SUCCEEDED:
            results.append(_result(outcome))
            tx.ranking.answered(_answered(tx, row, outcome))
        elif outcome.error is not None or outcome.died:
            error = outcome.error or ENGINE_DIED
            failures.append((row.seq, row.attempt, tx.now_ms, error.code, error.message))
        if state.ended:
            ends.append(
                Ended(row.seq, row.id, state, bool(row.shared), _answer(tx, row, outcome, event))
            )
        elif state is TaskState.PENDING:
            tx.ready(row.queue, row.tenant, row.rank, row.seq)
        if state is not TaskState.PENDING:
            over.append(row.seq)
        elif outcome.partial is not None:
            partials.append((row.seq, outcome.partial))
    checkpoints.keep(tx, partials)
    checkpoints.forget(tx, over)
    execute_rows(tx.cx, _RECORD, updates)
    execute_rows(tx.cx, "INSERT INTO result {rows}", results)
    same.remember(tx, results)
    execute_rows(tx.cx, "INSERT INTO failure {rows}", failures)
    tell_ends(tx, ends)
    return len(updates)


def _answer(tx: Transaction, row: _Running, outcome: Outcome, event: int) -> Answer:
    """What a query would find after this commit."""
    task = Task(
        *(row.id, outcome.state, row.tenant, row.queue, row.priority, row.kind, row.key, row.job),
        *(row.attempt, row.failures + outcome.charged, row.created_at, row.started_at, tx.now_ms),
        *(row.deadline_at, row.expires_at, outcome.error or error_of(row.error)),
        after_failure=row.after_failure,
        inherited_priority=row.inherited,
        version=event,
    )
    return Answer(task, outcome.output)


def _answered(tx: Transaction, row: _Running, outcome: Outcome) -> Answered:
    tokens, age_ms = outcome.usage.completion_tokens, max(0, tx.now_ms - row.created_at)
    return Answered(row.tenant, row.kind, outcome.prompt_chars, tokens, age_ms)


def _result(outcome: Outcome) -> tuple[object, ...]:
    output = outcome.output
    assert output is not None, "a success without an output"
    usage = output.usage
    return (
        *(outcome.seq, output.text, output.finish_reason),
        *(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, more_text(output)),
    )


def _wake_at(tx: Transaction, outcome: Outcome, expires_at: int | None) -> int | None:
    """When something is due for the task next: the end of its pause, or its expiry."""
    if outcome.state.ended:
        return None
    if outcome.state is not TaskState.RETRYING:
        return expires_at
    retry_at = tx.now_ms + outcome.retry_in_ms
    return retry_at if expires_at is None else min(retry_at, expires_at)


def put_back(tx: Transaction, write: PutBack) -> tuple[tuple[int, int], ...]:
    rows = tx.cx.execute(
        "SELECT seq, attempt, queue, tenant, rank, last_event FROM task"
        " WHERE state = 'running' AND (? IS NULL OR owner = ?)",
        (write.owner, write.owner),
    ).fetchall()
    if write.owner is None:
        # Their pauses were measured by a clock that may have jumped since.
        latest = tx.now_ms + write.pause_max_ms
        tx.cx.execute(
            "UPDATE task SET wake_at = ? WHERE state = 'retrying' AND wake_at > ?",
            (latest, latest),
        )
    gone = [row for row in rows if row[:2] not in write.keep]
    for seq, attempt, queue, tenant, rank, last_event in gone:
        event = tx.move(seq, TaskState.RUNNING, TaskState.PENDING, attempt, last_event)
        tx.cx.execute(
            "UPDATE task SET state = 'pending', owner = NULL, last_event = ? WHERE seq = ?",
            (event, seq),
        )
        tx.ready(queue, tenant, rank, seq)
    return tuple(row[:2] for row in gone)
