"""What the scheduler reads of the store: which lanes there are, and the head of each."""

from __future__ import annotations

import sqlite3

import msgspec

from autoglm.types import TaskState
from runtime.store.protocol import Key, Lane, Query
from runtime.store.rows import all_rows
from runtime.store.scheduleprotocol import FetchBacklog, FetchSchedule, Found, Schedule

_BEFORE_ALL: Key = (-(2**63), 0)

_LANES = """
SELECT json_group_array((
    SELECT json_array(
        json_group_array(json_array(rank, seq)),
        json_group_object(seq, begins) FILTER (WHERE begins IS NOT NULL)
    ) FROM (
        SELECT rank, seq, begins FROM task
        WHERE state = 'pending' AND queue = read.value ->> 0 AND tenant = read.value ->> 1
            AND (rank, seq) > (read.value ->> 2, read.value ->> 3)
        ORDER BY rank, seq LIMIT ?
    )
)) FROM json_each(?) read
"""
_HEADS = """
WITH RECURSIVE head (seq) AS (
    SELECT * FROM (
        SELECT seq FROM task WHERE state = 'pending' ORDER BY queue, tenant, rank, seq LIMIT 1
    )
    UNION ALL
    SELECT coalesce((
        SELECT next.seq FROM task next
        WHERE next.state = 'pending' AND next.queue = here.queue AND next.tenant > here.tenant
        ORDER BY next.tenant, next.rank, next.seq LIMIT 1
    ), (
        SELECT next.seq FROM task next
        WHERE next.state = 'pending' AND next.queue > here.queue
        ORDER BY next.queue, next.tenant, next.rank, next.seq LIMIT 1
    ))
    FROM head JOIN task here ON here.seq = head.seq
)
SELECT queue, tenant, rank, task.seq FROM head JOIN task ON task.seq = head.seq
"""
"""From one lane to the next by the index: as many steps as there are lanes, however many tasks."""

AHEAD_MAX = 10_000
"""How many of those before a task are counted, at most."""
_STANDING = """
SELECT state, queue, tenant, rank, seq, started_at FROM task
WHERE id = ? AND (? IS NULL OR tenant = ?) AND state IN ('pending', 'running')
"""
_AHEAD = """
SELECT count(*) FROM (
    SELECT 1 FROM task
    WHERE state = 'pending' AND queue = ? AND tenant = ? AND (rank, seq) < (?, ?) LIMIT ?
)
"""


class FetchStanding(Query, frozen=True):
    """Where a task stands in its lane. Result: `Standing`; None if it neither waits to be claimed
    nor runs, or is another tenant's.
    """

    tenant: str | None
    id: str


class Standing(msgspec.Struct, frozen=True):
    lane: Lane
    running_since: int | None
    """Unix ms; None: it is pending."""
    ahead: int = 0
    """Pending tasks of the lane before it, at most `AHEAD_MAX`."""


_decode_reads = msgspec.json.Decoder(
    tuple[tuple[tuple[Key, ...], dict[int, int] | None], ...]
).decode


def fetch_backlog(cx: sqlite3.Connection, query: FetchBacklog) -> Found:
    reads = [(*read.lane, *(read.after or _BEFORE_ALL)) for read in query.reads]
    found = _decode_reads(all_rows(cx, _LANES, (query.limit, msgspec.json.encode(reads).decode())))
    begins: dict[int, int] = {}
    for _, some in found:
        begins |= some or {}
    return Found(tuple(keys for keys, _ in found), begins)


def fetch_schedule(cx: sqlite3.Connection, _query: FetchSchedule) -> Schedule:
    heads = cx.execute(_HEADS).fetchall()
    running = cx.execute("SELECT seq, queue, tenant FROM task WHERE state = 'running'").fetchall()
    return Schedule(
        {(queue, tenant): (rank, seq) for queue, tenant, rank, seq in heads},
        {seq: (queue, tenant) for seq, queue, tenant in running},
    )


def fetch_standing(cx: sqlite3.Connection, query: FetchStanding) -> Standing | None:
    row = cx.execute(_STANDING, (query.id, query.tenant, query.tenant)).fetchone()
    if row is None:
        return None
    state, queue, tenant, rank, seq, started_at = row
    if state == TaskState.RUNNING:
        return Standing((queue, tenant), started_at)
    (ahead,) = cx.execute(_AHEAD, (queue, tenant, rank, seq, AHEAD_MAX)).fetchone()
    return Standing((queue, tenant), None, ahead)
