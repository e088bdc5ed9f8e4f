"""Transaction bodies around one attempt: claim it, put it back. `recording` is of how it ended."""

from __future__ import annotations

from collections.abc import Sequence

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


CLAIM_BYTES_MAX = 32 * 2**20
"""Of what the tasks of a claim hold; the one that goes beyond it is the last. All of them come as
one text, and SQLite makes none of a thousand million bytes.
"""
_decode_claimable = msgspec.json.Decoder(tuple[int, list[_Claimable]]).decode

_SELECT_CLAIMABLE = """
WITH RECURSIVE wanted (place, seq) AS MATERIALIZED (SELECT key, value FROM json_each(?)),
upto (place, bytes) AS (
    SELECT -1, 0
    UNION ALL
    SELECT wanted.place, upto.bytes + ifnull(length(CAST(p.body AS BLOB)), 0)
                                    + ifnull(length(CAST(c.body AS BLOB)), 0)
    FROM upto JOIN wanted ON wanted.place = upto.place + 1
    LEFT JOIN payload p ON p.task = wanted.seq LEFT JOIN checkpoint c ON c.task = wanted.seq
    WHERE upto.bytes < ?
), fits (place) AS MATERIALIZED (SELECT max(place) FROM upto)
SELECT json_array((SELECT place FROM fits),
                  json_group_array(json_array(t.seq, t.id, t.attempt, t.failures, t.deaths,
                                   coalesce(t.inherited, t.priority), t.rank, t.stream,
                                   t.last_event, t.queue, t.tenant, json(p.body), json(c.body))))
FROM wanted CROSS JOIN task t ON t.seq = wanted.seq
JOIN payload p ON p.task = t.seq LEFT JOIN checkpoint c ON c.task = t.seq
WHERE t.state = 'pending' AND t.queue NOT IN (SELECT queue FROM queue_paused WHERE NOT draining)
    AND wanted.place <= (SELECT place FROM fits)
"""
_LEFT_OUT = """
SELECT queue, tenant, rank, t.seq, coalesce(inherited, priority)
FROM json_each(?) wanted CROSS JOIN task t ON t.seq = wanted.value WHERE state = 'pending'
"""
_CLAIM = """
UPDATE task SET state = 'running', attempt = attempt + 1, owner = ?, started_at = ?,
                last_event = ? + claimed.key, wake_at = expires_at
FROM json_each(?) claimed WHERE seq = claimed.value AND state = 'pending'
"""


def claim_tasks(tx: Transaction, write: ClaimTasks) -> tuple[ClaimedTask, ...]:
    asked = (json_numbers(write.seqs), CLAIM_BYTES_MAX)
    last, rows = _decode_claimable(all_rows(tx.cx, _SELECT_CLAIMABLE, asked))
    _leave_out(tx, write.seqs[last + 1 :])
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


def _leave_out(tx: Transaction, seqs: Sequence[int]) -> None:
    """These were to be claimed and did not fit: whoever asked took them for gone."""
    if not seqs:
        return
    for queue, tenant, rank, seq, priority in tx.cx.execute(_LEFT_OUT, (json_numbers(seqs),)):
        tx.still_ready(queue, tenant, rank, seq)
        tx.urgent(seq, priority)


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
