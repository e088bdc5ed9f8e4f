"""Results by what was asked for, so that the same request can be answered with an earlier one.

The index `same` is kept only while a queue wants it: then each result enters it in the transaction
that records it, and those recorded before are looked at in slices, as a chore. A result counts for
its own tenant alone, if an engine gave it and that engine's model is known and today's. Which
engine it was is told by the number of the event that recorded it: a task's last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from autoglm.types import Output, TaskSpec, Usage
from runtime.store import checkpoints
from runtime.store.content import hash_of, same_content
from runtime.store.rows import execute_rows, json_numbers, output_of
from runtime.store.transaction import Transaction

SLICE = 250
"""Tasks looked at in one transaction: what the commits behind it wait for."""

_RECORDED = """
SELECT t.seq, t.tenant, t.last_event, p.body
FROM json_each(?) recorded CROSS JOIN task t ON t.seq = recorded.value
JOIN payload p ON p.task = t.seq
"""
_EARLIER = """
SELECT t.seq, t.tenant, t.last_event,
       CASE WHEN t.state = 'succeeded' AND t.degraded IS NULL THEN p.body END
FROM task t JOIN payload p ON p.task = t.seq
WHERE t.seq > ? AND t.seq <= ? ORDER BY t.seq LIMIT ?
"""
_FIND = """
SELECT t.last_event, p.body, t.seq
FROM same s CROSS JOIN task t ON t.seq = s.task JOIN payload p ON p.task = t.seq
WHERE s.hash = ? AND t.tenant = ? AND t.state = 'succeeded' AND t.degraded IS NULL
ORDER BY s.task DESC
"""


def note_engine(tx: Transaction, what: str) -> None:
    """Results recorded from now on are of `what`; checkpoints of another engine go."""
    if _engine_at(tx.cx, tx.next_event) != what:
        checkpoints.forget_all(tx)
        tx.cx.execute(
            "INSERT OR REPLACE INTO engine_since VALUES (?, ?)", (tx.next_event - 1, what)
        )


def keep(tx: Transaction, *, wanted: bool) -> None:
    """Keep the index from now on, or no longer."""
    if wanted == _kept(tx):
        return
    if wanted:
        tx.cx.execute("INSERT INTO same_upto SELECT 1, 0, coalesce(max(seq), 0) FROM task")
        tx.effects.chores = True
    else:
        tx.cx.execute("DELETE FROM same_upto")


def remember(tx: Transaction, results: Sequence[tuple[object, ...]]) -> None:
    """Rows of `result`, the task first, that were recorded in this transaction."""
    if not results or not _kept(tx):
        return
    _enter(tx, tx.cx.execute(_RECORDED, (json_numbers(int(str(row[0])) for row in results),)))


def catch_up(tx: Transaction) -> bool:
    """Look at a slice of what was recorded before the index was kept; whether there is more."""
    row = tx.cx.execute("SELECT done, last FROM same_upto WHERE done < last").fetchone()
    if row is None:
        return False
    done, last = row
    seen = _enter(tx, tx.cx.execute(_EARLIER, (done, last, SLICE)))
    done = seen[-1] if len(seen) == SLICE else last
    tx.cx.execute("UPDATE same_upto SET done = ?", (done,))
    return done < last


def find(tx: Transaction, spec: TaskSpec, body: str) -> Output | None:
    """The newest earlier answer to the same request; it cost nothing to give it again."""
    engine = _engine_at(tx.cx, tx.next_event)
    if engine is None:
        return None
    rows = tx.cx.execute(_FIND, (hash_of(spec.tenant, engine, body), spec.tenant))
    for event, asked, seq in rows:
        if same_content(asked, body) and _engine_at(tx.cx, event) == engine:
            text, finish_reason, more = tx.cx.execute(
                "SELECT text, finish_reason, more FROM result WHERE task = ?", (seq,)
            ).fetchone()
            return output_of(text, finish_reason, Usage(), "cached", more)
    return None


def _enter(tx: Transaction, rows: sqlite3.Cursor) -> list[int]:
    """Put results into the index; the tasks that were looked at. A row without a body is none."""
    seen: list[int] = []
    found: list[tuple[object, ...]] = []
    for seq, tenant, event, body in rows:
        seen.append(seq)
        if body is not None and (engine := _engine_at(tx.cx, event)) is not None:
            found.append((seq, hash_of(tenant, engine, body)))
    execute_rows(tx.cx, "INSERT OR IGNORE INTO same {rows}", found)
    return seen


def _kept(tx: Transaction) -> bool:
    return tx.cx.execute("SELECT 1 FROM same_upto").fetchone() is not None


def _engine_at(cx: sqlite3.Connection, event: int) -> str | None:
    """What served when this event was written; None where that is not known."""
    row = cx.execute(
        "SELECT what FROM engine_since WHERE event < ? ORDER BY event DESC LIMIT 1", (event,)
    ).fetchone()
    return None if row is None else row[0]
