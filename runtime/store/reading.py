"""The queries, as synchronous functions on a reading connection."""

from __future__ import annotations

import sqlite3
from typing import Any

from autoglm.errors import NotFound
from autoglm.types import Answer, Event, Task, TaskState, Usage
from autoglm.wire import JobLineEnded
from runtime.store.jobprotocol import FetchJobLines
from runtime.store.protocol import FetchAnswers, FetchEvents, FetchSummary, FetchTasks, Summary
from runtime.store.queues import paused_queues, queue_settings
from runtime.store.rows import (
    TASK_COLUMNS,
    TASK_WIDTH,
    chunked,
    error_of,
    marks,
    output_of,
    task_of,
)

PAGE_BYTES_MAX = 8 * 1024 * 1024
"""Answers' text in one page, so that a page always fits a frame."""

_ANSWER_COLUMNS = (
    f"{TASK_COLUMNS}, r.text, r.finish_reason, r.prompt_tokens, r.completion_tokens,"
    " r.cached_tokens, r.more"
)

_TEXT, _MORE = TASK_WIDTH, TASK_WIDTH + 5
"""Where in a row of them those stand."""

_CHAIN = """
WITH RECURSIVE chain AS (
    SELECT e.* FROM task t JOIN event e ON e.seq = t.last_event WHERE t.seq = :task
    UNION ALL SELECT e.* FROM chain c JOIN event e ON e.seq = c.prev WHERE c.seq > :after
)
"""
"""One task's events, from its newest back to the cursor."""


def fetch_answers(cx: sqlite3.Connection, query: FetchAnswers) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for ids in chunked(query.ids):
        rows = cx.execute(
            f"SELECT {_ANSWER_COLUMNS} FROM task t LEFT JOIN result r ON r.task = t.seq"  # noqa: S608
            f" WHERE t.id IN ({marks(len(ids))}) AND (? IS NULL OR t.tenant = ?)",
            (*ids, query.tenant, query.tenant),
        )
        for row in rows:
            found[row[0]] = _answer(row)
    return found


def fetch_tasks(cx: sqlite3.Connection, query: FetchTasks) -> tuple[tuple[Task, ...], int | None]:
    wanted = query.filter
    where, values = ["1"], list[object]()
    for column, value in (("tenant", query.tenant), ("tenant", wanted.tenant), ("job", wanted.job)):
        if value is not None:
            where.append(f"t.{column} = ?")
            values.append(value)
    if wanted.states:
        where.append(f"t.state IN ({marks(len(wanted.states))})")
        values.extend(wanted.states)
    if wanted.before is not None:
        where.append("t.seq < ?")
        values.append(wanted.before)
    rows = cx.execute(
        f"SELECT {TASK_COLUMNS}, t.seq FROM task t WHERE {' AND '.join(where)}"  # noqa: S608
        " ORDER BY t.seq DESC LIMIT ?",
        (*values, wanted.limit),
    ).fetchall()
    cursor = int(rows[-1][-1]) if len(rows) == wanted.limit else None
    return tuple(task_of(row) for row in rows), cursor


def fetch_events(cx: sqlite3.Connection, query: FetchEvents) -> tuple[tuple[Event, ...], int, bool]:
    wanted, task = query.filter, None
    if wanted.task is not None:
        task = cx.execute(
            "SELECT seq FROM task WHERE id = ? AND (? IS NULL OR tenant = ?)",
            (wanted.task, query.tenant, query.tenant),
        ).fetchone()
        if task is None:
            raise NotFound(f"no task {wanted.task}")
    chain, source = ("", "event") if task is None else (_CHAIN, "chain")
    rows = cx.execute(
        f"{chain} SELECT e.seq, t.id, t.tenant, e.from_state, e.to_state, e.attempt, e.at, e.cost,"  # noqa: S608
        " e.by"
        f" FROM {source} e JOIN task t ON t.seq = e.task"
        " WHERE e.seq > :after AND (:tenant IS NULL OR t.tenant = :tenant)"
        " ORDER BY e.seq LIMIT :limit",
        {
            "after": wanted.after,
            "tenant": query.tenant,
            "limit": wanted.limit,
            "task": None if task is None else task[0],
        },
    ).fetchall()
    events = tuple(_event(row) for row in rows)
    return events, rows[-1][0] if rows else wanted.after, len(rows) == wanted.limit


def fetch_job_lines(
    cx: sqlite3.Connection, query: FetchJobLines
) -> tuple[tuple[JobLineEnded, ...], bool]:
    """Ended lines after the cursor, and whether nothing more will ever come."""
    job = cx.execute(
        "SELECT sealed, lines, ended FROM job WHERE id = ? AND (? IS NULL OR tenant = ?)",
        (query.job, query.tenant, query.tenant),
    ).fetchone()
    if job is None:
        raise NotFound(f"no job {query.job}")
    cursor = "line" if query.ordered else "ended"
    rows = cx.execute(
        f"SELECT {_ANSWER_COLUMNS}, l.line, l.custom_id, l.url, l.error, l.ended"  # noqa: S608
        " FROM job_line l LEFT JOIN task t ON t.seq = l.task LEFT JOIN result r ON r.task = l.task"
        f" WHERE l.job = ? AND l.{cursor} > ? ORDER BY l.{cursor} LIMIT ?",
        (query.job, query.after, query.limit),
    )
    lines: list[JobLineEnded] = []
    size, exhausted = 0, True
    for row in rows:
        line, custom_id, url, error, ended = row[-5:]
        if ended is None or _open(row) or size > PAGE_BYTES_MAX:
            exhausted = False
            break
        answer = _answer(row) if row[0] is not None else None
        size += len(row[_TEXT] or "") + len(row[_MORE] or "")
        lines.append(
            JobLineEnded(
                line, line if query.ordered else ended, custom_id, url, answer, error_of(error)
            )
        )
    sealed, total, ended_count = job
    done = bool(sealed) and exhausted and len(lines) < query.limit and ended_count == total
    return tuple(lines), done


def fetch_summary(cx: sqlite3.Connection, _query: FetchSummary) -> Summary:
    rows = cx.execute("SELECT state, tasks FROM tally WHERE tasks != 0").fetchall()
    due = cx.execute("SELECT min(wake_at) FROM task WHERE wake_at IS NOT NULL").fetchone()
    counts = {TaskState(state): count for state, count in rows}
    lanes = cx.execute("SELECT queue, tenant, tasks FROM waiting WHERE tasks != 0 AND tenant != ''")
    waiting = {(queue, tenant): tasks for queue, tenant, tasks in lanes}
    return Summary(counts, due[0], queue_settings(cx), paused_queues(cx), waiting)


def _open(row: tuple[Any, ...]) -> bool:
    """Whether a line's task has not ended: a dead letter that was retried runs again."""
    return row[0] is not None and not TaskState(row[1]).ended


def _event(row: tuple[Any, ...]) -> Event:
    seq, task, tenant, before, after, attempt, at, cost, by = row
    before = None if before is None else TaskState(before)
    return Event(seq, task, tenant, before, TaskState(after), attempt, at, cost, by)


def _answer(row: tuple[Any, ...]) -> Answer:
    task = task_of(row)
    text, finish_reason, *usage, more = row[TASK_WIDTH : TASK_WIDTH + 6]
    if text is None:
        return Answer(task)
    return Answer(task, output_of(text, finish_reason, Usage(*usage), task.degraded, more))
