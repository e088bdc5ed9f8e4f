"""The longest wait of a queue, and what becomes of a task that waited longer.

The rules are rows of the store, written by each server that begins, so that every transaction that
makes a task pending can note when its wait is over; it rides on `wake_at`. A wait begins anew
whenever a task becomes pending: what has run and was put back has not waited.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from autoglm.text import in_words, one_line
from autoglm.types import ErrorInfo, TaskState
from runtime.store.protocol import Key
from runtime.store.rows import error_text
from runtime.store.transaction import Transaction

WATCH_MS = 1000
OVERFLOW = "queue_wait"
"""The code of the error that says so."""


OLDEST = 64
"""Tasks of a queue among which the next to be watched is looked for."""
_LATE = """
SELECT t.rank, t.seq FROM (
    SELECT seq FROM task WHERE state = 'pending' AND queue = ? ORDER BY seq LIMIT ?
) oldest CROSS JOIN task t ON t.seq = oldest.seq LEFT JOIN event e ON e.seq = t.last_event
WHERE t.wake_at IS t.expires_at AND coalesce(e.at, 0) <= ? ORDER BY t.seq LIMIT 1
"""


class Overflow(msgspec.Struct, frozen=True, array_like=True):
    """A row of `overflow`."""

    queue: str
    max_wait_ms: int
    rule: Literal["reject", "archive", "refuse_lower"]


def set_overflow(tx: Transaction, rules: Sequence[Overflow]) -> None:
    """From now on these hold. What waits already is looked at when its time comes."""
    tx.cx.execute("DELETE FROM overflow")
    tx.cx.executemany(
        "INSERT INTO overflow VALUES (?, ?, ?)",
        [(each.queue, each.max_wait_ms, each.rule) for each in rules],
    )


def rule_of(tx: Transaction, queue: str) -> Overflow | None:
    row = tx.cx.execute("SELECT * FROM overflow WHERE queue = ?", (queue,)).fetchone()
    return Overflow(*row) if row else None


def why(rule: Overflow) -> ErrorInfo:
    limit = in_words(rule.max_wait_ms / 1000)
    name = one_line(rule.queue, 40)
    return ErrorInfo(OVERFLOW, f"it waited longer than queue {name!r} lets it, {limit}")


def put_aside(tx: Transaction, seq: int, attempt: int, last_event: int, rule: Overflow) -> None:
    """Pending -> archived: it is kept, and does not run until somebody requeues it."""
    event = tx.move(seq, TaskState.PENDING, TaskState.ARCHIVED, attempt, last_event)
    tx.cx.execute(
        "UPDATE task SET state = 'archived', wake_at = expires_at, error = ?, last_event = ?"
        " WHERE seq = ?",
        (error_text(why(rule)), event, seq),
    )


def keep_watch(tx: Transaction, queue: str, key: Key) -> None:
    """Tasks up to `key` have waited longer than `queue` lets them, and go on waiting: others are
    refused for as long, unless `queue` is paused: then nobody's work would let them run.

    The one that is served last of them is looked at again, on a full second, so that those of many
    moments become one: whatever the queue holds, it is a few rows a second.
    """
    rule = rule_of(tx, queue)
    assert rule is not None, "it was looked at a moment ago"
    again = (tx.now_ms + rule.max_wait_ms) // WATCH_MS * WATCH_MS + WATCH_MS
    tx.cx.execute(
        "UPDATE task SET wake_at = min(coalesce(expires_at, ?), ?) WHERE seq = ?",
        (again, again, key[1]),
    )
    tx.watch(queue, key[1])
    tx.due(again)
    held = "SELECT 1 FROM queue_paused WHERE queue = ? AND NOT draining"
    if tx.cx.execute(held, (queue,)).fetchone() is None:
        tx.effects.overflowed[queue] = again + WATCH_MS


def pass_watch_on(tx: Transaction) -> None:
    """Whoever was watched and is pending no longer is followed by the oldest that waits too long.

    To be called when the transaction is finished: it goes by the events.
    """
    for queue in tuple(tx.unwatched):
        rule = rule_of(tx, queue)
        if rule is not None and rule.rule == "refuse_lower":
            since = tx.now_ms - rule.max_wait_ms
            key = tx.cx.execute(_LATE, (queue, OLDEST, since)).fetchone()
            if key is not None:
                keep_watch(tx, queue, key)
