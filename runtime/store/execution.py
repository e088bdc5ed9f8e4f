"""Transaction bodies around one attempt: claim it, put it back. `recording` is of how it ended."""

from __future__ import annotations

import msgspec

from autoglm.types import TaskState
from runtime.partial import Partial
from runtime.store.protocol import ClaimedTask, ClaimTasks, PutBack
from runtime.store.rows import all_rows, json_numbers
from runtime.store.transaction import Payload, Transaction


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


_decode_claimable = msgspec.json.Decoder(list[_Claimable]).decode

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
