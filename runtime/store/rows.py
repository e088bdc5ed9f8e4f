"""Rows in and out of SQLite: many at once, and what stands in a task's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import TypeVar

import msgspec

from autoglm.degrade import Degraded
from autoglm.types import Choice, ErrorInfo, Output, Task, TaskState, TokenLogprob, Usage

V = TypeVar("V")
_NOTHING_ELSE: Mapping[str, object] = {}

# ── many rows at once ────────────────────────────────────────────────────────────────────────────
# Python's sqlite3 gives up the interpreter's lock for every row that goes in or comes out, and has
# to win it back from the event loop each time. A statement that takes all its rows at once, and
# one that gives all of its answer as one JSON text, gives it up once, for all of SQLite's work.
# It also asks whatever is no plain number or text how it wants to be adapted, None and members of
# an enum among them, which takes ten times as long as to bind a number: so NULLs are left out where
# a whole column has them, and what is the same in all rows is bound once.

_ROWS_AT_ONCE = (256, 64, 16, 4, 1)
"""Few sizes, so that the statements stay prepared; 256 rows keep within SQLite's bound values."""


def execute_rows(cx: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> int:
    """Run `sql` with `rows` in the place of its `{rows}`. Returns how many rows it changed."""
    changed, start = 0, 0
    for size in _ROWS_AT_ONCE:
        while len(rows) - start >= size:
            values = [value for row in rows[start : start + size] for value in row]
            changed += cx.execute(_with_rows(sql, len(rows[0]), size), values).rowcount
            start += size
    return changed


def insert_rows(
    cx: sqlite3.Connection,
    table: str,
    columns: Sequence[str],
    rows: Sequence[tuple[object, ...]],
    same: Mapping[str, object] = _NOTHING_ELSE,
) -> None:
    """Insert `rows` of two `columns` or more; `same` is what all of them have besides.

    A column in which none of them has anything gets its default.
    """
    if not rows:
        return
    filled = [at for at in range(len(columns)) if any(row[at] is not None for row in rows)]
    if len(filled) < len(columns):
        columns, rows = [columns[at] for at in filled], list(map(itemgetter(*filled), rows))
    shared, start = tuple(same.values()), 0
    into = f"{table} ({', '.join((*same, *columns))})"
    for size in _ROWS_AT_ONCE:
        while len(rows) - start >= size:
            values = [*shared, *chain.from_iterable(rows[start : start + size])]
            cx.execute(_insert(into, len(shared), len(columns), size), values)
            start += size


def all_rows(cx: sqlite3.Connection, sql: str, values: Iterable[object]) -> str:
    """The answer of a query that makes one JSON text of all its rows."""
    (text,) = cx.execute(sql, tuple(values)).fetchone()
    return text


def json_numbers(numbers: Iterable[int]) -> str:
    """For `json_each`."""
    return msgspec.json.encode(tuple(numbers)).decode()


@lru_cache(maxsize=256)
def _insert(into: str, shared: int, width: int, count: int) -> str:
    row = ", ".join((*(f"?{at + 1}" for at in range(shared)), *"?" * width))
    return f"INSERT INTO {into} VALUES {', '.join([f'({row})'] * count)}"  # noqa: S608


@lru_cache(maxsize=128)
def _with_rows(sql: str, width: int, count: int) -> str:
    row = f"({marks(width)})"
    return sql.format(rows="VALUES " + ", ".join([row] * count))


RESULT = (
    *("task", "text", "finish_reason", "prompt_tokens", "completion_tokens", "cached_tokens"),
    "more",
)
"""Columns of an answer."""
WAITS_FOR_SHOWN = 10
"""Names of upstream tasks in a task: a page of 1,000 has to fit a frame."""
TASK_COLUMNS = (
    "t.id, t.state, t.tenant, t.queue, t.priority, t.kind, t.key, t.job, t.attempt, t.failures,"  # noqa: S608
    " t.created_at, t.started_at, t.finished_at, t.deadline_at, t.expires_at, t.error, t.degraded,"
    " t.after_failure, t.inherited, CASE t.state WHEN 'blocked' THEN (SELECT json_group_array(id)"
    " FROM (SELECT u.id FROM blocker b CROSS JOIN task u ON u.seq = b.upstream"
    f" WHERE b.task = t.seq ORDER BY b.upstream LIMIT {WAITS_FOR_SHOWN})) END,"
    " coalesce(t.last_event, 0)"
)
TASK_WIDTH = 21


def task_of(row: tuple[object, ...]) -> Task:
    """The task in the first `TASK_WIDTH` columns, selected as `TASK_COLUMNS`."""
    *plain, error, degraded, after_failure, inherited, waits_for, version = row[:TASK_WIDTH]
    waits = msgspec.json.decode(str(waits_for), type=tuple[str, ...]) if waits_for else ()
    return Task(
        *(plain[0], TaskState(plain[1]), *plain[2:], error_of(error), degraded),  # pyright: ignore
        after_failure=after_failure,  # pyright: ignore
        inherited_priority=inherited,  # pyright: ignore
        waits_for=waits,
        version=version,  # pyright: ignore
    )


def error_of(text: object) -> ErrorInfo | None:
    return None if text is None else msgspec.json.decode(str(text), type=ErrorInfo)


def error_text(error: ErrorInfo | None) -> str | None:
    return None if error is None else msgspec.json.encode(error).decode()


class More(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a result holds beside its text; few do."""

    logprobs: tuple[TokenLogprob, ...] | None = None
    others: tuple[Choice, ...] = ()


_decode_more = msgspec.json.Decoder(More).decode


def more_text(output: Output) -> str | None:
    if output.logprobs is None and not output.others:
        return None
    return msgspec.json.encode(More(output.logprobs, output.others)).decode()


def output_of(
    text: str, finish_reason: str, usage: Usage, degraded: Degraded | None, more: str | None
) -> Output:
    held = More() if more is None else _decode_more(more)
    return Output(text, finish_reason, usage, degraded, held.logprobs, held.others)


def chunked(items: tuple[V, ...], size: int = 500) -> Iterator[tuple[V, ...]]:
    """Pieces that fit SQLite's limit on bound values."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def marks(count: int) -> str:
    return ", ".join("?" * count)
