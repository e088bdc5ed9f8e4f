"""Reading tasks in bulk, and finding one by a part of its id.

A page looks at a bounded stretch of the table whatever it is asked for, so no filter that fits
little holds up those who ask for something else.
"""

from __future__ import annotations

import sqlite3

import msgspec

from autoglm.deadletter import Content
from autoglm.types import Usage
from autoglm.wire import Exported, ExportTasks
from runtime.store.protocol import Query
from runtime.store.rows import TASK_COLUMNS, TASK_WIDTH, marks, output_of, task_of

STRETCH = 10_000
"""Tasks that one page looks at."""
PAGE_BYTES_MAX = 8 * 1024 * 1024
"""Of prompts and answers in one page, unless it holds one task alone; a prompt that is longer by
itself stays away, so that with the longest answer it fits a frame.
"""
RECENT = 100_000
"""Among so many of the newest tasks the end of an id is looked for: there is no index of ends."""
FOUND_MAX = 5

_decode = msgspec.json.Decoder(Content).decode
_ROW = (
    f"{TASK_COLUMNS}, t.seq, length(CAST(p.body AS BLOB)),"
    " coalesce(length(CAST(r.text AS BLOB)), 0) + coalesce(length(CAST(r.more AS BLOB)), 0),"
    " r.text, r.finish_reason, r.prompt_tokens, r.completion_tokens, r.cached_tokens, r.more"
)


class FetchExport(Query, frozen=True):
    """Result: `tuple[tuple[Exported, ...], int | None]`, a page and the cursor of the next."""

    tenant: str | None
    filter: ExportTasks


class FetchIds(Query, frozen=True):
    """Result: `tuple[str, ...]`: `FOUND_MAX` at most, of what begins or ends with `part`."""

    tenant: str | None
    part: str


def fetch_export(
    cx: sqlite3.Connection, query: FetchExport
) -> tuple[tuple[Exported, ...], int | None]:
    wanted = query.filter
    after = wanted.after
    if wanted.since is not None:
        after = max(after, _last_before(cx, wanted.since))
    stretch, values = "seq > ?", list[object]([after])
    if wanted.job is not None:
        stretch += " AND job = ?"
        values.append(wanted.job)
    (end, looked_at) = cx.execute(
        "SELECT max(seq), count(*) FROM"  # noqa: S608
        f" (SELECT seq FROM task WHERE {stretch} ORDER BY seq LIMIT {STRETCH})",
        values,
    ).fetchone()
    if end is None:
        return (), None
    where = ""
    for column, value in (
        *(("tenant", query.tenant), ("tenant", wanted.tenant), ("queue", wanted.queue)),
    ):
        if value is not None:
            where += f" AND t.{column} = ?"
            values.append(value)
    if wanted.states:
        where += f" AND t.state IN ({marks(len(wanted.states))})"
        values.extend(wanted.states)
    rows = cx.execute(
        f"SELECT {_ROW} FROM task t JOIN payload p ON p.task = t.seq"  # noqa: S608
        " LEFT JOIN result r ON r.task = t.seq"
        f" WHERE t.{stretch.replace('AND job', 'AND t.job')}{where} AND t.seq <= ?"
        " ORDER BY t.seq LIMIT ?",
        (*values, end, wanted.limit),
    )
    found: list[Exported] = []
    size, last = 0, after
    for row in rows:
        task = task_of(row)
        seq, asks, says, text, finish_reason, *usage, more = row[TASK_WIDTH:]
        size += says + (asks if asks <= PAGE_BYTES_MAX else 0)
        if found and size > PAGE_BYTES_MAX:
            return tuple(found), last
        content = None
        if asks <= PAGE_BYTES_MAX:
            (body,) = cx.execute("SELECT body FROM payload WHERE task = ?", (seq,)).fetchone()
            content = _decode(body)
        output = None
        if text is not None:
            output = output_of(text, finish_reason, Usage(*usage), task.degraded, more)
        found.append(Exported(task, content, output))
        last = seq
    if len(found) == wanted.limit:
        return tuple(found), last
    return tuple(found), end if looked_at == STRETCH else None


def fetch_ids(cx: sqlite3.Connection, query: FetchIds) -> tuple[str, ...]:
    part = query.part
    found: dict[str, None] = {}
    (newest,) = cx.execute("SELECT coalesce(max(seq), 0) FROM task").fetchone()
    for source, condition, values in (
        ("task", "id >= ? AND id < ?", (part, part + "\U0010ffff")),
        ("job", "id >= ? AND id < ?", (part, part + "\U0010ffff")),
        ("task", "seq > ? AND substr(id, ?) = ?", (newest - RECENT, -len(part), part)),
        ("job", "substr(id, ?) = ?", (-len(part), part)),
    ):
        rows = cx.execute(
            f"SELECT id FROM {source} WHERE {condition} AND (? IS NULL OR tenant = ?) LIMIT ?",  # noqa: S608
            (*values, query.tenant, query.tenant, FOUND_MAX),
        )
        found |= dict.fromkeys(id for (id,) in rows)
    return tuple(found)[:FOUND_MAX]


def _last_before(cx: sqlite3.Connection, since_ms: int) -> int:
    """The number of the last task handed in before `since_ms`: tasks are in the order of time."""
    (low, high) = cx.execute(
        "SELECT coalesce(min(seq), 0), coalesce(max(seq), -1) FROM task"
    ).fetchone()
    low -= 1  # whoever is at `low` is before; whoever is behind `high` is not
    while low < high:
        middle = (low + high + 1) // 2
        (created_at,) = cx.execute(
            "SELECT created_at FROM task WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (middle,)
        ).fetchone() or (0,)
        if created_at < since_ms:
            low = middle
        else:
            high = middle - 1
    return low
