"""A census: what the store holds against what it held before, for failure drills.

It believes neither the tally nor the events where it can look at the rows themselves.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from autoglm.drill import Census
from autoglm.types import TaskState
from runtime.store.protocol import Query

TASKS_SLICE = 50_000
"""Tasks looked at in one query: what other readers wait for."""

_ENDED = ", ".join(f"'{state.value}'" for state in TaskState if state.ended)

# A task that was open then is open now, or its newest event is younger than that census.
_HELD = f"""
SELECT count(*) FROM task WHERE seq > :after AND seq <= :upto
AND (state NOT IN ({_ENDED}) OR last_event > :events)
"""  # noqa: S608 - no value comes from outside
_NOW = f"""
SELECT coalesce((SELECT max(seq) FROM task), 0), coalesce((SELECT max(seq) FROM event), 0),
    (SELECT coalesce(sum(tasks), 0) FROM tally WHERE state NOT IN ({_ENDED}))
"""  # noqa: S608
_SINCE = f"""
WITH since AS MATERIALIZED (SELECT * FROM event WHERE seq > :events)
SELECT
    (SELECT count(*) FROM since WHERE from_state IS NULL),
    (SELECT count(*) FROM since s LEFT JOIN task t ON t.seq = s.task
        WHERE s.from_state IS NULL AND t.seq IS NULL),
    (SELECT count(*) FROM since s LEFT JOIN result r ON r.task = s.task
        WHERE s.to_state = 'succeeded' AND r.task IS NULL),
    (SELECT count(*) FROM (SELECT 1 FROM since WHERE to_state IN ({_ENDED})
        AND task NOT IN (SELECT task FROM since WHERE by IS NOT NULL)
        GROUP BY task HAVING count(*) > 1)),
    (SELECT count(DISTINCT task) FROM since WHERE from_state = 'running' AND to_state = 'pending'),
    (SELECT count(DISTINCT s.task) FROM since s JOIN task t ON t.seq = s.task
        WHERE s.from_state = 'running' AND s.to_state = 'pending' AND t.state NOT IN ({_ENDED})),
    (SELECT count(*) FROM since WHERE from_state = 'running' AND to_state IN ('retrying', 'dead')),
    (SELECT min(at) FROM since WHERE to_state = 'succeeded' AND at >= :answered_from)
"""  # noqa: S608


class TakeCensus(Query, frozen=True):
    """Result: `Census`. `tasks` and `events` are those of an earlier one."""

    tasks: int
    events: int
    answered_from: int
    after: int


def take_census(cx: sqlite3.Connection, query: TakeCensus) -> Census:
    upto = min(query.tasks, query.after + TASKS_SLICE)
    (held,) = cx.execute(
        _HELD, {"after": query.after, "upto": upto, "events": query.events}
    ).fetchone()
    cx.execute("BEGIN")
    try:
        now = cx.execute(_NOW).fetchone()
        given = {"events": query.events, "answered_from": query.answered_from}
        since = cx.execute(_SINCE, given).fetchone()
    finally:
        cx.execute("ROLLBACK")
    row: tuple[Any, ...] = (*now, held, upto if upto < query.tasks else None, *since)
    return Census(*row)
