"""Transaction bodies that record how attempts ended.

The fence: an outcome is written only while its task is running under the very attempt that made
it. Whoever comes late, after a cancellation, an expiry or a newer attempt, writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from autoglm.graph import AfterFailure
from autoglm.types import Answer, ErrorInfo, Output, Task, TaskState
from runtime.partial import Partial
from runtime.store import checkpoints, same
from runtime.store.endings import Ended, tell_ends
from runtime.store.protocol import Answered, Outcome, RecordOutcomes
from runtime.store.rows import (
    RESULT,
    all_rows,
    error_of,
    error_text,
    execute_rows,
    insert_rows,
    json_numbers,
    more_text,
)
from runtime.store.transaction import Transaction

ENGINE_DIED = ErrorInfo("engine_died", "the engine died while it ran; nothing was charged")
"""What is noted of an attempt that was cut short so."""


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


_Attempt = tuple[_Running, Outcome]
"""One that is recorded now, and how it ended."""
_decode_running = msgspec.json.Decoder(list[_Running]).decode

_SELECT_RUNNING = """
SELECT json_group_array(json_array(t.seq, t.attempt, t.failures, t.rank, t.shared, t.last_event,
                                   t.error, t.id, t.tenant, t.queue, t.priority, t.kind, t.key,
                                   t.job, t.created_at, t.started_at, t.deadline_at, t.expires_at,
                                   t.after_failure, t.inherited))
FROM json_each(?) wanted CROSS JOIN task t ON t.seq = wanted.value
WHERE t.state = 'running'
"""
_SUCCEED = """
UPDATE task SET state = 'succeeded', owner = NULL, finished_at = ?, wake_at = NULL,
                last_event = ? + answered.key
FROM json_each(?) answered WHERE seq = answered.value AND state = 'running'
"""
_RECORD = """
WITH outcome (of, attempt, state, charged, died, finished_at, error, wake_at, event) AS ({rows})
UPDATE task SET state = outcome.state, owner = NULL, failures = failures + charged,
                deaths = deaths + died, finished_at = outcome.finished_at,
                error = coalesce(outcome.error, task.error), wake_at = outcome.wake_at,
                last_event = event
FROM outcome WHERE seq = of AND task.state = 'running' AND task.attempt = outcome.attempt
"""


def record_outcomes(tx: Transaction, write: RecordOutcomes) -> int:
    wanted = json_numbers(outcome.seq for outcome in write.outcomes)
    running = {
        (row.seq, row.attempt): row
        for row in _decode_running(all_rows(tx.cx, _SELECT_RUNNING, (wanted,)))
    }
    answered: list[_Attempt] = []
    others: list[_Attempt] = []
    for outcome in write.outcomes:
        row = running.pop((outcome.seq, outcome.attempt), None)
        if row is not None:
            succeeded = outcome.state is TaskState.SUCCEEDED
            (answered if succeeded else others).append((row, outcome))
    over = [row.seq for row, outcome in others if outcome.state is not TaskState.PENDING]
    over += [row.seq for row, _ in answered]
    checkpoints.forget(tx, over)
    tell_ends(tx, [*_record_answers(tx, answered), *_record_others(tx, others)])
    return len(answered) + len(others)


def _record_answers(tx: Transaction, attempts: Sequence[_Attempt]) -> list[Ended]:
    """Their events follow each other, so that a list of tasks is all that SQLite has to be told."""
    if not attempts:
        return []
    first = tx.next_event
    results: list[tuple[object, ...]] = []
    ends: list[Ended] = []
    for row, outcome in attempts:
        usage, output = outcome.usage, outcome.output
        assert output is not None, "a success without an output"
        event = tx.move(
            row.seq, TaskState.RUNNING, TaskState.SUCCEEDED, row.attempt, row.last_event, usage
        )
        results.append(_result(row.seq, output))
        age_ms = max(0, tx.now_ms - row.created_at)
        tokens = usage.completion_tokens
        tx.ranking.answered(Answered(row.tenant, row.kind, outcome.prompt_chars, tokens, age_ms))
        answer = _answer(tx, row, outcome, event)
        ends.append(Ended(row.seq, row.id, TaskState.SUCCEEDED, bool(row.shared), answer))
    seqs = json_numbers(row.seq for row, _ in attempts)
    tx.cx.execute(_SUCCEED, (tx.now_ms, first, seqs))
    insert_rows(tx.cx, "result", RESULT, results)
    same.remember(tx, results)
    return ends


def _record_others(tx: Transaction, attempts: Sequence[_Attempt]) -> list[Ended]:
    updates: list[tuple[object, ...]] = []
    failures: list[tuple[object, ...]] = []
    partials: list[tuple[int, Partial]] = []
    ends: list[Ended] = []
    for row, outcome in attempts:
        state = outcome.state
        event = tx.move(
            row.seq, TaskState.RUNNING, state, row.attempt, row.last_event, outcome.usage
        )
        wake_at = _wake_at(tx, outcome, row.expires_at)
        tx.due(wake_at)
        updates.append(
            (
                *(row.seq, row.attempt, state.value, int(outcome.charged), int(outcome.died)),
                *(tx.now_ms if state.ended else None, error_text(outcome.error), wake_at, event),
            )
        )
        if outcome.error is not None or outcome.died:
            error = outcome.error or ENGINE_DIED
            failures.append((row.seq, row.attempt, tx.now_ms, error.code, error.message))
        if state.ended:
            answer = _answer(tx, row, outcome, event)
            ends.append(Ended(row.seq, row.id, state, bool(row.shared), answer))
        elif state is TaskState.PENDING:
            tx.ready(row.queue, row.tenant, row.rank, row.seq)
        if state is TaskState.PENDING and outcome.partial is not None:
            partials.append((row.seq, outcome.partial))
    checkpoints.keep(tx, partials)
    execute_rows(tx.cx, _RECORD, updates)
    execute_rows(tx.cx, "INSERT INTO failure {rows}", failures)
    return ends


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


def _result(seq: int, output: Output) -> tuple[object, ...]:
    usage = output.usage
    return (
        *(seq, output.text, output.finish_reason),
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
