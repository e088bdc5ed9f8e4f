"""An older store is brought forward whole or left alone; nothing that was in it changes."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.policy.rank import ranker
from autoglm.types import Message, Sampling
from runtime.store.migrations import STEPS, migrate
from runtime.store.opening import APPLICATION_ID, SCHEMA_VERSION, prepare
from runtime.store.protocol import StoreError
from runtime.store.sqlite import SqliteStore
from runtime.store.transaction import Payload

SCHEMA_1 = (Path(__file__).parent / "data" / "schema_v1.sql").read_text()
GAINED_IN_3 = ("degraded", "after_failure", "inherited")
GAINED_IN_4 = ("begins",)
JOB_GAINED = ("draining",)
"""The last columns of `task`."""
SCHEMA_2 = (Path(__file__).parent / "data" / "schema_v2.sql").read_text()
SCHEMA_3 = (Path(__file__).parent / "data" / "schema_v3.sql").read_text()
PAYLOADS = [
    Payload(messages=(Message("system", "Be brief."), Message("user", "Ä \x00 😀 \u2028"))),
    Payload(prompt="plain", sampling=Sampling(max_tokens=7, temperature=1.0, seed=2**53 + 1)),
    Payload(prompt="", sampling=Sampling(stop=("a", "b"), top_p=0.1)),
    Payload(prompt="x"),
    Payload(prompt="y"),
    Payload(prompt="z"),
]
STATES = ("pending", "running", "retrying", "succeeded", "blocked", "cancelled")


def fill(cx: sqlite3.Connection) -> None:
    """A row of every kind: one task in each of STATES, numbered from 1."""
    for seq, (state, payload) in enumerate(zip(STATES, PAYLOADS, strict=True), start=1):
        ended = state in ("succeeded", "cancelled")
        cx.execute(
            f"INSERT INTO task VALUES ({', '.join('?' * 23)})",
            (
                *(seq, f"id-{seq}", state, 1000 - seq, seq, 1, 2),
                *("batcher-1" if state == "running" else None, "tenant", "normal", 5, "kind"),
                *(f"key-{seq}" if seq % 2 else None, "job" if seq > 3 else None, 1, seq % 2),
                *(100 + seq, 200, 300 if ended else None, 400, 500, None if ended else 600),
                '{"code":"engine_error","message":"no"}' if state == "retrying" else None,
            ),
        )
        cx.execute("INSERT INTO payload VALUES (?, ?)", (seq, msgspec.msgpack.encode(payload)))
    cx.execute("INSERT INTO result VALUES (4, 'the answer', 'stop', 3, 2, 1)")
    cx.execute("INSERT INTO blocker VALUES (1, 5)")
    for seq, task, before, after in (
        *((10, 1, None, "pending"), (11, 2, None, "pending"), (13, 4, None, "pending")),
        *((14, 2, "pending", "running"), (15, 4, "pending", "running")),
        *((17, 4, "running", "succeeded"), (18, 5, None, "blocked"), (19, 3, None, "pending")),
    ):
        cx.execute(
            "INSERT INTO event VALUES (?, ?, ?, ?, 1, ?, 9)", (seq, task, before, after, seq)
        )
    cx.execute("INSERT INTO job VALUES ('job', 'tenant', '/out', 'i', 'o', 1, 4, 1, 3, 2, 1)")
    cx.execute("INSERT INTO job_line VALUES ('job', 1, 'c', '/v1', 4, NULL, 1)")
    cx.execute("INSERT INTO job_line VALUES ('job', 2, NULL, '/v1', NULL, '{}', 2)")
    cx.execute("INSERT INTO job_line VALUES ('job', 4, 'd', '/v1', 5, NULL, NULL)")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A filled store of schema 1."""
    path = tmp_path / "queue.sqlite3"
    cx = sqlite3.connect(path)
    cx.executescript(
        f"PRAGMA journal_mode = WAL; PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = 1; {SCHEMA_1}"
    )
    fill(cx)
    cx.commit()
    cx.close()
    return path


@pytest.fixture
def new(old: Path) -> Iterator[sqlite3.Connection]:
    """The same store, opened by today's code."""
    cx = sqlite3.connect(old, isolation_level=None)
    prepare(cx, old)
    yield cx
    cx.close()


def content(path: Path, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Every row of every table as a mapping, but for the columns in `without`."""
    cx = sqlite3.connect(path)
    cx.row_factory = sqlite3.Row
    names = [name for (name,) in cx.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {
        name: [
            {column: row[column] for column in row.keys() if column not in without}  # noqa: SIM118
            for row in cx.execute(f"SELECT * FROM {name} ORDER BY 1")
        ]
        for name in names
    }
    cx.close()
    return found


def schema(cx: sqlite3.Connection) -> dict[str, str]:
    """What there is by name, its SQL without comments and layout."""
    rows = cx.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL")
    bare = {name: " ".join(re.sub(r"--.*", "", sql).split()) for name, sql in rows}
    return {name: re.sub(r" ?([(),]) ?", r"\1", sql) for name, sql in bare.items()}


def test_a_migrated_store_has_the_schema_of_a_new_one(
    new: sqlite3.Connection, tmp_path: Path
) -> None:
    fresh = sqlite3.connect(tmp_path / "fresh.sqlite3", isolation_level=None)
    prepare(fresh, tmp_path / "fresh.sqlite3")
    assert schema(new) == schema(fresh)
    for cx in (new, fresh):
        assert cx.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert cx.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    fresh.close()


def test_nothing_that_was_there_is_lost_or_changed(old: Path) -> None:
    before = content(old, without=frozenset({"body"}))
    cx = sqlite3.connect(old, isolation_level=None)
    prepare(cx, old)
    cx.close()
    gained = {"body", "prev", "last_event", "by", "more", *GAINED_IN_3, *GAINED_IN_4, *JOB_GAINED}
    after = content(old, without=frozenset(gained))
    assert {name: after[name] for name in before} == before
    assert all(before.values()), "a table that is empty proves nothing"


def test_payloads_are_the_json_that_would_be_written_today(new: sqlite3.Connection) -> None:
    bodies = [body for (body,) in new.execute("SELECT body FROM payload ORDER BY task")]
    assert bodies == [msgspec.json.encode(payload).decode() for payload in PAYLOADS]
    assert [msgspec.json.decode(body, type=Payload) for body in bodies] == PAYLOADS


def test_each_event_knows_the_one_before_it_and_each_task_its_last(
    new: sqlite3.Connection,
) -> None:
    prev = dict(new.execute("SELECT seq, prev FROM event").fetchall())
    assert prev == {10: None, 11: None, 13: None, 14: 11, 15: 13, 17: 15, 18: None, 19: None}
    last = dict(new.execute("SELECT seq, last_event FROM task").fetchall())
    assert last == {1: 10, 2: 14, 3: 19, 4: 17, 5: 18, 6: None}


def test_a_migrated_store_is_whole(new: sqlite3.Connection) -> None:
    assert new.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_a_migration_that_fails_leaves_the_file_as_it_was(old: Path) -> None:
    cx = sqlite3.connect(old)
    cx.execute("UPDATE payload SET body = x'c1' WHERE task = 6")
    cx.commit()
    cx.close()
    before = content(old)
    store = SqliteStore(old, ranker("fifo"))
    with pytest.raises(StoreError, match="it is as it was"):
        await store.open()
    assert content(old) == before
    with sqlite3.connect(old) as cx:
        assert cx.execute("PRAGMA user_version").fetchone() == (1,)
        assert schema(cx)["payload"].startswith("CREATE TABLE payload(task INTEGER PRIMARY KEY,")
    cx.close()


def test_a_step_that_fails_takes_those_before_it_back(old: Path) -> None:
    before = content(old)

    def broken(cx: sqlite3.Connection) -> None:
        cx.execute("DROP TABLE payload")
        cx.execute("SELECT planted")

    cx = sqlite3.connect(old, isolation_level=None)
    with pytest.raises(StoreError, match="planted"):
        migrate(cx, old, 1, 3, {**STEPS, 2: broken})
    cx.close()
    assert content(old) == before


def test_there_is_a_step_from_every_version() -> None:
    assert list(STEPS) == list(range(1, SCHEMA_VERSION))


def test_a_store_of_version_2_keeps_its_rows_and_gains_what_version_3_has(
    tmp_path: Path, new: sqlite3.Connection
) -> None:
    path = tmp_path / "second.sqlite3"
    cx = sqlite3.connect(path, isolation_level=None)
    cx.executescript(
        f"PRAGMA journal_mode = WAL; PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = 2; {SCHEMA_2}"
    )
    rows = new.execute("SELECT * FROM task").fetchall()
    had = len(rows[0]) - len(GAINED_IN_3) - len(GAINED_IN_4)
    marks = ", ".join("?" * had)
    cx.executemany(f"INSERT INTO task VALUES ({marks})", [row[:had] for row in rows])
    prepare(cx, path)
    assert cx.execute("SELECT * FROM task").fetchall() == rows
    assert {value for row in rows for value in row[had:]} == {None}
    assert schema(cx) == schema(new)
    cx.close()


def test_a_store_of_version_3_keeps_its_rows_and_gains_what_version_4_has(
    tmp_path: Path, new: sqlite3.Connection
) -> None:
    path = tmp_path / "third.sqlite3"
    cx = sqlite3.connect(path, isolation_level=None)
    cx.executescript(
        f"PRAGMA journal_mode = WAL; PRAGMA application_id = {APPLICATION_ID};"
        f" PRAGMA user_version = 3; {SCHEMA_3}"
    )
    rows = new.execute("SELECT * FROM task").fetchall()
    had = len(rows[0]) - len(GAINED_IN_4)
    marks = ", ".join("?" * had)
    cx.executemany(f"INSERT INTO task VALUES ({marks})", [row[:had] for row in rows])
    prepare(cx, path)
    assert cx.execute("SELECT * FROM task").fetchall() == rows
    assert schema(cx) == schema(new)
    assert cx.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    cx.close()
