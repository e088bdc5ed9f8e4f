"""From an older schema to today's: one pure function a step, all of them in one transaction.

    1 ─▶ 2   payloads as JSON instead of msgpack; each event knows the one before it; what can
             be removed is found by its age; tasks are counted by state; dead letters keep what
             went wrong
    2 ─▶ 3   what is set of a queue; tasks that were answered without an engine; results are found
             by what was asked for, and the engine they are of is known; pending tasks are found
             by queue and tenant; what becomes of a task when another that it waits for fails,
             and whose urgency it has; what waits is counted
    3 ─▶ 4   checkpoints: how far the answer of an open task is; queues and jobs that are drained;
             what waits is counted by queue, too; a result may hold more than a text

A step is frozen: it spells out the tables it makes, because `schema.sql` goes on. SQLite can't
change a column's type or place, so a table is renamed, made anew, filled by one statement and the
old one dropped. Either all steps and the version are committed or the file stays as it was.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from runtime.store.migration_3 import MORE_3
from runtime.store.migration_4 import MORE_4
from runtime.store.protocol import StoreError

log = logging.getLogger("autoglm.store")

Step = Callable[[sqlite3.Connection], None]
"""Brings the tables from one version to the next; leaves transaction and version alone."""

LOG_ROWS_MIN = 100_000
"""Tables smaller than this are done before anybody wonders."""


def migrate(
    cx: sqlite3.Connection,
    path: Path,
    version: int,
    target: int,
    steps: Mapping[int, Step] | None = None,
) -> None:
    """Bring the store at `path` from `version` to `target`.

    Raises StoreError for rows that no step understands and sqlite3.Error for the disk's own
    trouble; nothing is changed then.
    """
    steps = STEPS if steps is None else steps
    cx.execute("BEGIN IMMEDIATE")
    try:
        for each in range(version, target):
            log.warning("migrating the store from schema %d to %d", each, each + 1)
            steps[each](cx)
        cx.execute(f"PRAGMA user_version = {target}")
        cx.execute("COMMIT")
    except BaseException as error:
        if cx.in_transaction:
            cx.execute("ROLLBACK")
        if getattr(error, "sqlite_errorname", "") == "SQLITE_ERROR":
            raise StoreError(
                f"{path} can't be brought from schema {version} to {target} ({error}); it is as"
                " it was: go on with the version of autoglm that wrote it",
            ) from error
        raise
    log.warning("the store is of schema %d now", target)


def json_payloads_and_chained_events(cx: sqlite3.Connection) -> None:
    """1 -> 2."""
    cx.create_function("json_of_msgpack", 1, _json_of_msgpack, deterministic=True)
    _rebuild(cx, "payload", _PAYLOAD_2, "SELECT task, json_of_msgpack(body) FROM old_payload")
    _rebuild(cx, "event", _EVENT_2, _CHAINED)
    cx.execute("CREATE TEMP TABLE last (task INTEGER PRIMARY KEY, event INTEGER NOT NULL)")
    cx.execute("INSERT INTO last SELECT task, max(seq) FROM event GROUP BY task")
    _rebuild(cx, "task", _TASK_2, _WITH_LAST_EVENT)
    cx.execute("DROP TABLE temp.last")
    for statement in _MORE_2:
        cx.execute(statement)


def queue_settings_and_degraded_answers(cx: sqlite3.Connection) -> None:
    """2 -> 3. Nothing is rewritten, however large the store is."""
    for statement in MORE_3:
        cx.execute(statement)


def checkpoints(cx: sqlite3.Connection) -> None:
    """3 -> 4. Nothing is rewritten."""
    for statement in MORE_4:
        cx.execute(statement)


STEPS: Mapping[int, Step] = {
    1: json_payloads_and_chained_events,
    2: queue_settings_and_degraded_answers,
    3: checkpoints,
}


def _rebuild(cx: sqlite3.Connection, table: str, create: str, select: str) -> None:
    """Replace `table` by the one that `create` makes, filled by `select` from `old_<table>`.

    Its indexes go with the old one.
    """
    (rows,) = cx.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    if rows >= LOG_ROWS_MIN:
        log.warning("rewriting %d rows of table %s", rows, table)
    cx.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    cx.execute(create)
    cx.execute(f"INSERT INTO {table} {select}")
    cx.execute(f"DROP TABLE old_{table}")


def _json_of_msgpack(body: bytes) -> str:
    return msgspec.json.encode(msgspec.msgpack.decode(body)).decode()


_PAYLOAD_2 = """
CREATE TABLE payload (
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT
"""
_EVENT_2 = """
CREATE TABLE event (
    seq        INTEGER PRIMARY KEY,
    task       INTEGER NOT NULL,
    prev       INTEGER,
    from_state TEXT,
    to_state   TEXT    NOT NULL,
    attempt    INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    cost       INTEGER NOT NULL,
    by         TEXT
) STRICT
"""
_CHAINED = """
SELECT seq, task, lag(seq) OVER (PARTITION BY task ORDER BY seq),
       from_state, to_state, attempt, at, cost, NULL
FROM old_event ORDER BY seq
"""
_TASK_2 = """
CREATE TABLE task (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL UNIQUE,
    state       TEXT    NOT NULL,
    rank        INTEGER NOT NULL,
    attempt     INTEGER NOT NULL DEFAULT 0,
    failures    INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0,
    last_event  INTEGER,
    owner       TEXT,
    tenant      TEXT    NOT NULL,
    queue       TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    kind        TEXT,
    key         TEXT,
    job         TEXT,
    stream      INTEGER NOT NULL,
    shared      INTEGER NOT NULL DEFAULT 0,
    created_at  INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER,
    deadline_at INTEGER,
    expires_at  INTEGER,
    wake_at     INTEGER,
    error       TEXT
) STRICT
"""
_WITH_LAST_EVENT = """
SELECT t.seq, id, state, rank, attempt, failures, deaths, last.event, owner, tenant, queue,
       priority, kind, key, job, stream, shared, created_at, started_at, finished_at, deadline_at,
       expires_at, wake_at, error
FROM old_task t LEFT JOIN temp.last ON last.task = t.seq ORDER BY t.seq
"""
_MORE_2 = (
    "CREATE UNIQUE INDEX task_key ON task (tenant, key) WHERE key IS NOT NULL",
    "CREATE INDEX task_pending ON task (rank, seq) WHERE state = 'pending'",
    "CREATE INDEX task_running ON task (owner) WHERE state = 'running'",
    "CREATE INDEX task_due ON task (wake_at) WHERE wake_at IS NOT NULL",
    "CREATE INDEX task_job ON task (job, seq) WHERE job IS NOT NULL",
    "CREATE INDEX task_ended ON task (finished_at) WHERE finished_at IS NOT NULL AND job IS NULL",
    "CREATE INDEX task_dead ON task (seq) WHERE state = 'dead'",
    """
CREATE TABLE original (
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT
""",
    """
CREATE TABLE failure (
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    code    TEXT    NOT NULL,
    message TEXT    NOT NULL,
    PRIMARY KEY (task, attempt)
) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE chore (
    job  TEXT    NOT NULL,
    what TEXT    NOT NULL,
    done INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job, what)
) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE floor (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    task       INTEGER NOT NULL,
    event      INTEGER NOT NULL,
    logical_ms INTEGER NOT NULL
) STRICT
""",
    """
CREATE TABLE engine_breaker (
    engine     TEXT    PRIMARY KEY,
    what       TEXT    NOT NULL,
    trips      INTEGER NOT NULL,
    open_until INTEGER NOT NULL
) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE tally (
    state TEXT    PRIMARY KEY,
    tasks INTEGER NOT NULL
) STRICT, WITHOUT ROWID
""",
    "INSERT INTO tally SELECT state, count(*) FROM task GROUP BY state",
)
