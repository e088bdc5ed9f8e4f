"""Transaction bodies around queues: what is set of them, and what a server begins with."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from runtime.store import same
from runtime.store.overflow import set_overflow
from runtime.store.queueprotocol import BeginServing, SetQueue, SteerQueue
from runtime.store.standin import KeptQueue, PausedQueue
from runtime.store.transaction import Transaction

_SET = """
INSERT INTO queue_setting VALUES (:queue, :degrade, :text, :by, :at) ON CONFLICT DO UPDATE
SET degrade = :degrade, default_text = coalesce(:text, default_text), by = :by, at = :at
RETURNING queue, degrade, default_text
"""
_HOLD = """
INSERT INTO queue_paused VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE
SET by = excluded.by, at = excluded.at, draining = excluded.draining
WHERE draining != excluded.draining
"""


def begin_serving(tx: Transaction, write: BeginServing) -> None:
    same.note_engine(tx, write.what)
    set_overflow(tx, write.overflow)
    _keep_what_is_needed(tx, write.cached)


def set_queue(tx: Transaction, write: SetQueue) -> None:
    queue = write.queue
    if write.degrade is None:
        tx.cx.execute("DELETE FROM queue_setting WHERE queue = ?", (queue,))
        tx.effects.queues[queue] = None
    else:
        row = tx.cx.execute(
            _SET,
            {
                "queue": queue,
                "degrade": write.degrade,
                "text": write.default_text,
                "by": write.by,
                "at": tx.now_ms,
            },
        ).fetchone()
        tx.effects.queues[queue] = KeptQueue(*row)
    _keep_what_is_needed(tx, write.cached)


def steer_queue(tx: Transaction, write: SteerQueue) -> None:
    queue, draining = write.queue, write.deed == "drain"
    paused: PausedQueue | None = None
    if write.deed == "resume":
        changed = tx.cx.execute("DELETE FROM queue_paused WHERE queue = ?", (queue,))
    else:
        changed = tx.cx.execute(_HOLD, (queue, write.by, tx.now_ms, draining))
        paused = PausedQueue(queue, write.by, draining)
    if changed.rowcount:
        tx.effects.paused[queue] = paused


def paused_queues(cx: sqlite3.Connection) -> tuple[PausedQueue, ...]:
    rows = cx.execute("SELECT queue, by, draining FROM queue_paused ORDER BY queue")
    return tuple(PausedQueue(queue, by, bool(draining)) for queue, by, draining in rows)


def queue_settings(cx: sqlite3.Connection) -> tuple[KeptQueue, ...]:
    rows = cx.execute("SELECT queue, degrade, default_text FROM queue_setting ORDER BY queue")
    return tuple(KeptQueue(*row) for row in rows)


def _keep_what_is_needed(tx: Transaction, cached: Collection[str]) -> None:
    """Keep the index of results while a queue wants it, and no longer."""
    live = {kept.queue: kept.degrade for kept in queue_settings(tx.cx)}
    configured = dict.fromkeys(cached, "cached")
    same.keep(tx, wanted="cached" in (configured | live).values())
