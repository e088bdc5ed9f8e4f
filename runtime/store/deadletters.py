"""Dead letters: looked at, retried, edited, discarded. Transactions and queries.

A retry counts failures anew and lets `attempt` go on rising, so that no late writer is let in. Its
rank, and so its place in the queue, is the old one. Engine deaths it was present at stay counted:
a suspect goes on running alone. An expiry that has passed is lifted, or it would expire at once.
Lines of jobs keep their places; tasks that waited for it were cancelled, or let run, and stay so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec

from autoglm.deadletter import Content, DeadLetter, DeadLetterInFull, Failure
from autoglm.errors import Conflict, NotFound
from autoglm.types import ErrorInfo, TaskState
from runtime.store.deadprotocol import (
    Chosen,
    DiscardDead,
    EditDead,
    FetchDeadLetter,
    FetchDeadLetters,
    RetryDead,
)
from runtime.store.named import find_named
from runtime.store.protocol import Settled
from runtime.store.rows import error_of
from runtime.store.transaction import Payload, Transaction

SLICE = 500
"""Dead letters looked at in one transaction: what the commits behind it wait for."""
EXCERPT_CHARS = 500
"""Of a text in a list: a page of 1,000 letters has to fit a frame."""
ERRORS_MAX = 1000
ERROR_CHARS = 4000
ORIGINAL_BYTES_MAX = 8 * 1024 * 1024
"""Of what an edited task was and is, together: beyond it, what it was is left out."""

_NO_ERROR = ErrorInfo("unknown", "no error was recorded")
_LETTER = (
    "t.id, t.tenant, t.queue, t.kind, t.key, t.job, t.attempt, t.failures, t.created_at,"
    " t.finished_at, t.error,"
    " substr(coalesce(p.body ->> '$.prompt', p.body ->> '$.messages[#-1].content', ''), 1, ?)"
)
Change = Callable[[Transaction, int], None]


# ── acts ─────────────────────────────────────────────────────────────────────────────────────────


def retry_dead(tx: Transaction, write: RetryDead) -> Settled:
    tx.by = write.by
    return _settle(tx, write.chosen, _retry)


def discard_dead(tx: Transaction, write: DiscardDead) -> Settled:
    tx.by = write.by
    return _settle(tx, write.chosen, _discard)


def edit_dead(tx: Transaction, write: EditDead) -> None:
    row = tx.cx.execute(
        "SELECT t.seq, t.state, t.attempt, p.body FROM task t JOIN payload p ON p.task = t.seq"
        " WHERE t.id = ? AND (? IS NULL OR t.tenant = ?)",
        (write.id, write.tenant, write.tenant),
    ).fetchone()
    if row is None:
        raise NotFound(f"no task {write.id}")
    seq, state, attempt, before = row
    content = write.content
    payload = Payload(content.messages, content.prompt, content.sampling)
    after = msgspec.json.encode(payload).decode()
    if state != TaskState.DEAD or attempt != write.attempt:
        if before == after:
            return  # the same edit, repeated: its reply was lost
        raise _not_dead(write.id, state)
    tx.by = write.by
    if before != after:
        tx.cx.execute("INSERT OR IGNORE INTO original VALUES (?, ?)", (seq, before))
        tx.cx.execute("UPDATE payload SET body = ? WHERE task = ?", (after, seq))
    _retry(tx, seq)


def _settle(tx: Transaction, chosen: Chosen, change: Change) -> Settled:
    named = find_named(tx, chosen.ids, chosen.tenant)
    count, after = 0, None
    for seq, state in named.found:
        if state is TaskState.DEAD:
            change(tx, seq)
            count += 1
    if chosen.every:
        rows = tx.cx.execute(
            "SELECT seq, tenant, error ->> '$.code' FROM task"
            " WHERE state = 'dead' AND seq > ? ORDER BY seq LIMIT ?",
            (chosen.after, SLICE),
        ).fetchall()
        for seq, tenant, reason in rows:
            if _fits(chosen, tenant, reason):
                change(tx, seq)
                count += 1
        after = rows[-1][0] if len(rows) == SLICE else None
    return Settled(named.known, named.unknown, count, after)


def _fits(chosen: Chosen, tenant: str, reason: str | None) -> bool:
    return (
        chosen.tenant in (None, tenant)
        and chosen.of_tenant in (None, tenant)
        and chosen.reason in (None, reason or _NO_ERROR.code)
    )


def _retry(tx: Transaction, seq: int) -> None:
    queue, tenant, rank, attempt, last_event, expires_at = tx.cx.execute(
        "SELECT queue, tenant, rank, attempt, last_event, expires_at FROM task WHERE seq = ?",
        (seq,),
    ).fetchone()
    if expires_at is not None and expires_at <= tx.now_ms:
        expires_at = None
    event = tx.move(seq, TaskState.DEAD, TaskState.PENDING, attempt, last_event)
    tx.cx.execute(
        "UPDATE task SET state = 'pending', failures = 0, finished_at = NULL, error = NULL,"
        " expires_at = ?, wake_at = ?, last_event = ? WHERE seq = ?",
        (expires_at, expires_at, event, seq),
    )
    tx.due(expires_at)
    tx.ready(queue, tenant, rank, seq)


def _discard(tx: Transaction, seq: int) -> None:
    attempt, last_event = tx.cx.execute(
        "SELECT attempt, last_event FROM task WHERE seq = ?", (seq,)
    ).fetchone()
    event = tx.move(seq, TaskState.DEAD, TaskState.CANCELLED, attempt, last_event)
    tx.cx.execute(
        "UPDATE task SET state = 'cancelled', finished_at = ?, last_event = ? WHERE seq = ?",
        (tx.now_ms, event, seq),
    )


# ── queries ──────────────────────────────────────────────────────────────────────────────────────


def fetch_dead_letters(
    cx: sqlite3.Connection, query: FetchDeadLetters
) -> tuple[tuple[DeadLetter, ...], int | None]:
    """Newest first."""
    wanted = query.filter
    where, values = ["t.state = 'dead'"], list[object]()
    for term, value in (
        ("t.tenant = ?", query.tenant),
        ("t.tenant = ?", wanted.tenant),
        (f"coalesce(t.error ->> '$.code', '{_NO_ERROR.code}') = ?", wanted.reason),
        ("t.seq < ?", wanted.before),
    ):
        if value is not None:
            where.append(term)
            values.append(value)
    rows = cx.execute(
        f"SELECT {_LETTER}, t.seq FROM task t JOIN payload p ON p.task = t.seq"  # noqa: S608
        f" WHERE {' AND '.join(where)} ORDER BY t.seq DESC LIMIT ?",
        (EXCERPT_CHARS, *values, wanted.limit),
    ).fetchall()
    cursor = rows[-1][-1] if len(rows) == wanted.limit else None
    return tuple(DeadLetter(**_letter(row[:-1])) for row in rows), cursor


def fetch_dead_letter(cx: sqlite3.Connection, query: FetchDeadLetter) -> DeadLetterInFull:
    row = cx.execute(
        f"SELECT t.state, t.seq, p.body, o.body, {_LETTER}"  # noqa: S608
        " FROM task t JOIN payload p ON p.task = t.seq LEFT JOIN original o ON o.task = t.seq"
        " WHERE t.id = ? AND (? IS NULL OR t.tenant = ?)",
        (EXCERPT_CHARS, query.id, query.tenant, query.tenant),
    ).fetchone()
    if row is None:
        raise NotFound(f"no task {query.id}")
    state, seq, body, original, *letter = row
    if state != TaskState.DEAD:
        raise _not_dead(query.id, state)
    if original is not None and len(body) + len(original) > ORIGINAL_BYTES_MAX:
        original = None
    errors = cx.execute(
        "SELECT attempt, at, code, substr(message, 1, ?) FROM failure WHERE task = ?"
        " ORDER BY attempt DESC LIMIT ?",
        (ERROR_CHARS, seq, ERRORS_MAX),
    ).fetchall()
    return DeadLetterInFull(
        **_letter(letter),
        content=msgspec.json.decode(body, type=Content),
        errors=tuple(Failure(*each) for each in reversed(errors)),
        original=None if original is None else msgspec.json.decode(original, type=Content),
    )


def _letter(row: Any) -> dict[str, Any]:
    """The fields of a letter in a row selected as `_LETTER`."""
    id, tenant, queue, kind, key, job, attempt, failures, created_at, died_at, error, text = row
    why = error_of(error) or _NO_ERROR
    return {
        "message_id": id,
        "reason": why.code,
        "error": why.message[:EXCERPT_CHARS],
        "tenant": tenant,
        "queue": queue,
        "kind": kind,
        "key": key,
        "job": job,
        "attempt": attempt,
        "failures": failures,
        "created_at": created_at,
        "died_at": died_at,
        "text": text,
    }


def _not_dead(id: str, state: str) -> Conflict:
    return Conflict(f"task {id} is {state}, no dead letter")
