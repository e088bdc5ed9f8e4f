"""Transaction bodies around one attempt: claim it, record how it ended, put it back.

The fence: an outcome is written only while its task is running under the very attempt that made
it. Whoever comes late, after a cancellation, an expiry or a newer attempt, writes nothing.
"""

from __future__ import annotations

import msgspec

from autoglm.types import TaskState
from runtime.store.endings import tell_end
from runtime.store.protocol import ClaimedTask, ClaimTasks, Outcome, PutBack, RecordOutcomes
from runtime.store.transaction import Payload, Transaction, error_text

_decode: msgspec.json.Decoder[Payload] = msgspec.json.Decoder(Payload)


def claim_tasks(tx: Transaction, write: ClaimTasks) -> tuple[ClaimedTask, ...]:
    claimed: list[ClaimedTask] = []
    for seq in write.seqs:
        row = tx.cx.execute(
            "UPDATE task SET state = 'running', attempt = attempt + 1, owner = ?, started_at = ?"
            " WHERE seq = ? AND state = 'pending'"
            " RETURNING id, attempt, failures, deaths, priority, rank, stream",
            (write.owner, tx.now_ms, seq),
        ).fetchone()
        if row is None:
            continue
        id, attempt, failures, deaths, priority, rank, stream = row
        (body,) = tx.cx.execute("SELECT body FROM payload WHERE task = ?", (seq,)).fetchone()
        payload = _decode.decode(body)
        tx.move(seq, TaskState.PENDING, TaskState.RUNNING, attempt)
        claimed.append(
            ClaimedTask(
                *(seq, id, attempt, failures, deaths, priority, rank, bool(stream)),
                *(payload.messages, payload.prompt, payload.sampling),
            )
        )
    return tuple(claimed)


def record_outcomes(tx: Transaction, write: RecordOutcomes) -> int:
    return sum(_record(tx, outcome) for outcome in write.outcomes)


def _record(tx: Transaction, outcome: Outcome) -> bool:
    state, seq = outcome.state, outcome.seq
    row = tx.cx.execute(
        "UPDATE task SET state = ?, owner = NULL, failures = failures + ?,"
        " deaths = deaths + ?, finished_at = ?,"
        " error = coalesce(?, error), wake_at = CASE WHEN ? THEN NULL ELSE"
        " min(coalesce(?, expires_at), coalesce(expires_at, ?)) END"
        " WHERE seq = ? AND state = 'running' AND attempt = ?"
        " RETURNING id, rank, shared, wake_at",
        (
            *(state, int(outcome.charged), int(outcome.died)),
            tx.now_ms if state.ended else None,
            *(error_text(outcome.error), state.ended),
            *(_retry_at(tx, outcome), _retry_at(tx, outcome)),
            *(seq, outcome.attempt),
        ),
    ).fetchone()
    if row is None:
        return False
    id, rank, shared, wake_at = row
    tx.move(seq, TaskState.RUNNING, state, outcome.attempt, outcome.cost)
    tx.due(wake_at)
    if state is TaskState.SUCCEEDED:
        output = outcome.output
        assert output is not None, "a success without an output"
        usage = output.usage
        tx.cx.execute(
            "INSERT INTO result VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(seq, output.text, output.finish_reason),
                *(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
            ),
        )
    if state.ended:
        tell_end(tx, seq, id, state, shared=bool(shared))
    elif state is TaskState.PENDING:
        tx.effects.ready.append((rank, seq))
    return True


def put_back(tx: Transaction, write: PutBack) -> tuple[tuple[int, int], ...]:
    rows = tx.cx.execute(
        "SELECT seq, attempt, rank FROM task WHERE state = 'running' AND (? IS NULL OR owner = ?)",
        (write.owner, write.owner),
    ).fetchall()
    if write.owner is None:
        # Their pauses were measured by a clock that may have jumped since.
        tx.cx.execute(
            "UPDATE task SET wake_at = ? WHERE state = 'retrying' AND wake_at > ?",
            (tx.now_ms, tx.now_ms),
        )
    gone = [row for row in rows if row[:2] not in write.keep]
    for seq, attempt, rank in gone:
        tx.cx.execute("UPDATE task SET state = 'pending', owner = NULL WHERE seq = ?", (seq,))
        tx.move(seq, TaskState.RUNNING, TaskState.PENDING, attempt)
        tx.effects.ready.append((rank, seq))
    return tuple((seq, attempt) for seq, attempt, _ in gone)


def _retry_at(tx: Transaction, outcome: Outcome) -> int | None:
    return tx.now_ms + outcome.retry_in_ms if outcome.state is TaskState.RETRYING else None
