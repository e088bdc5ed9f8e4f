"""Many rows go into SQLite at once as they would one by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from runtime.store.rows import insert_rows

COLUMNS = ("number", "name", "maybe")
Row = tuple[int, str | None, str | None]


@pytest.fixture
def cx() -> Iterator[sqlite3.Connection]:
    cx = sqlite3.connect(":memory:", isolation_level=None)
    cx.execute("CREATE TABLE t (number INTEGER, name TEXT, maybe TEXT, at INTEGER, who TEXT)")
    yield cx
    cx.close()


@pytest.mark.parametrize("count", [0, 1, 3, 4, 341, 600])
def test_every_row_is_stored_once_however_many_there_are(
    cx: sqlite3.Connection, count: int
) -> None:
    rows: list[Row] = [(number, f"name {number}", None) for number in range(count)]
    insert_rows(cx, "t", COLUMNS, rows)
    assert cx.execute("SELECT number, name, maybe FROM t ORDER BY number").fetchall() == rows


def test_a_column_that_only_some_rows_fill_keeps_what_each_has(cx: sqlite3.Connection) -> None:
    rows: list[Row] = [(1, None, None), (2, "b", None), (3, None, None), (4, "d", None)]
    insert_rows(cx, "t", COLUMNS, rows)
    assert cx.execute("SELECT number, name, maybe FROM t ORDER BY number").fetchall() == rows


def test_what_is_the_same_in_all_rows_stands_in_each(cx: sqlite3.Connection) -> None:
    rows: list[Row] = [(number, "name", "x") for number in range(70)]
    insert_rows(cx, "t", COLUMNS, rows, {"at": 5, "who": None})
    assert cx.execute("SELECT DISTINCT at, who, count(*) FROM t").fetchall() == [(5, None, 70)]
    assert cx.execute("SELECT number FROM t").fetchall() == [(row[0],) for row in rows]
