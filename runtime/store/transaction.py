"""One transaction in the making: the connection, the time, and what has changed so far.

Bodies are plain synchronous functions on a `Transaction`. They run on aiosqlite's thread in
production and inline in a simulation: the same SQL. Every change of state goes through `move`,
which consults the table of legal transitions and writes the event log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

import msgspec

from autoglm.types import ErrorInfo, Message, Sampling, Task, TaskSpec, TaskState, Usage
from runtime.store.protocol import Effects, Left
from runtime.store.transitions import legal

V = TypeVar("V")
_NOTHING = Usage()
RankOf = Callable[[TaskSpec, int], int]
"""`(task, logical time in ms) -> rank`: the scheduling policy, handed in."""


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attempt needs and nobody else looks at: the content, and the limits it goes by."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    max_attempts: int | None = None
    attempt_timeout_s: float | None = None


class IllegalTransition(Exception):
    """A bug of ours: a change of state that is not in the table. Nothing of the write is kept."""


_INSERT_EVENTS = """
INSERT INTO event (seq, task, prev, from_state, to_state, attempt, at, cost) {rows}
"""


class Counters:
    """Numbers that only rise, kept between transactions. Owned by the one writing connection."""

    def __init__(self, cx: sqlite3.Connection) -> None:
        kept = cx.execute("SELECT task, event, logical_ms FROM floor").fetchone() or (0, 0, 0)
        last = "SELECT created_at FROM task ORDER BY seq DESC LIMIT 1"
        self.task = max(kept[0], _largest(cx, "SELECT max(seq) FROM task"))
        self.event = max(kept[1], _largest(cx, "SELECT max(seq) FROM event"))
        self.logical_ms = max(kept[2], _largest(cx, last))


class Transaction:
    def __init__(
        self, cx: sqlite3.Connection, counters: Counters, now_ms: int, rank_of: RankOf
    ) -> None:
        self.cx = cx
        self.now_ms = now_ms
        self.rank_of = rank_of
        self.effects = Effects()
        self.by: str | None = None
        """Who makes these changes, if it is a person; for the event log."""
        self.copied_chars = 0
        """Of earlier answers that were given again."""
        self._counters = counters
        counters.logical_ms = max(counters.logical_ms, now_ms)
        self._events: list[tuple[object, ...]] = []

    @property
    def logical_ms(self) -> int:
        """Time that never goes back, whatever the clock did: what ranks are made of."""
        return self._counters.logical_ms

    @property
    def next_event(self) -> int:
        """The number that the next `move` returns; those after it follow without a gap."""
        return self._counters.event + 1

    def new_task(self) -> int:
        self._counters.task += 1
        return self._counters.task

    def move(
        self,
        seq: int,
        before: TaskState | None,
        after: TaskState,
        attempt: int,
        prev: int | None,
        usage: Usage = _NOTHING,
    ) -> int:
        """Note that task `seq` changes state. Returns the event's number, its new `last_event`.

        `prev`: its `last_event` until now; `usage`: of the attempt that ends. Raises
        IllegalTransition.
        """
        if not legal(before, after):
            raise IllegalTransition(f"task {seq}: {before} -> {after} is not a legal transition")
        self._counters.event += 1
        event = self._counters.event
        cost = usage.total_tokens
        self._events.append((event, seq, prev, before, after, attempt, self.now_ms, cost))
        if before is TaskState.RUNNING:
            self.effects.left.append(Left(seq, usage))
        counts = self.effects.counts
        counts[after] = counts.get(after, 0) + 1
        if before is not None:
            counts[before] = counts.get(before, 0) - 1
        return event

    def ready(self, queue: str, tenant: str, rank: int, seq: int) -> None:
        """Note that a task has become pending."""
        self.effects.ready.setdefault((queue, tenant), []).append((rank, seq))

    def urgent(self, seq: int) -> None:
        """Note that what has become pending is urgent, and new."""
        self.effects.urgent.append(seq)

    def not_ready(self, seqs: Collection[int]) -> None:
        """Note that these ended before anybody heard that they were pending."""
        left = {
            lane: [key for key in keys if key[1] not in seqs]
            for lane, keys in self.effects.ready.items()
        }
        self.effects.ready = {lane: keys for lane, keys in left.items() if keys}

    def due(self, at_ms: int | None) -> None:
        """Note that something is to happen at `at_ms`."""
        known = self.effects.next_due_ms
        if at_ms is not None and (known is None or at_ms < known):
            self.effects.next_due_ms = at_ms

    def keep_counters(self) -> None:
        """Write down what was given out: the rows that showed it are being removed."""
        given = self._counters
        self.cx.execute(
            "INSERT OR REPLACE INTO floor VALUES (1, ?, ?, ?)",
            (given.task, given.event, given.logical_ms),
        )

    def write_events(self) -> None:
        if self.by is None:
            execute_rows(self.cx, _INSERT_EVENTS, self._events)
        else:
            signed = [(*event, self.by) for event in self._events]
            execute_rows(self.cx, "INSERT INTO event {rows}", signed)
        self._events = []


# ── many rows at once ────────────────────────────────────────────────────────────────────────────
# Python's sqlite3 gives up the interpreter's lock for every row that goes in or comes out, and has
# to win it back from the event loop each time. A statement that takes all its rows at once, and
# one that gives all of its answer as one JSON text, gives it up once, for all of SQLite's work.

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


def all_rows(cx: sqlite3.Connection, sql: str, values: Iterable[object]) -> str:
    """The answer of a query that makes one JSON text of all its rows."""
    (text,) = cx.execute(sql, tuple(values)).fetchone()
    return text


def json_numbers(numbers: Iterable[int]) -> str:
    """For `json_each`."""
    return f"[{','.join(map(str, numbers))}]"


@lru_cache(maxsize=128)
def _with_rows(sql: str, width: int, count: int) -> str:
    row = f"({marks(width)})"
    return sql.format(rows="VALUES " + ", ".join([row] * count))


TASK_COLUMNS = (
    "t.id, t.state, t.tenant, t.queue, t.priority, t.kind, t.key, t.job, t.attempt, t.failures,"
    " t.created_at, t.started_at, t.finished_at, t.deadline_at, t.expires_at, t.error, t.degraded"
)
TASK_WIDTH = 17


def task_of(row: tuple[object, ...]) -> Task:
    """The task in the first `TASK_WIDTH` columns, selected as `TASK_COLUMNS`."""
    *plain, error, degraded = row[:TASK_WIDTH]
    return Task(plain[0], TaskState(plain[1]), *plain[2:], error_of(error), degraded)  # pyright: ignore


def error_of(text: object) -> ErrorInfo | None:
    return None if text is None else msgspec.json.decode(str(text), type=ErrorInfo)


def error_text(error: ErrorInfo | None) -> str | None:
    return None if error is None else msgspec.json.encode(error).decode()


def chunked(items: tuple[V, ...], size: int = 500) -> Iterator[tuple[V, ...]]:
    """Pieces that fit SQLite's limit on bound values."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def marks(count: int) -> str:
    return ", ".join("?" * count)


def _largest(cx: sqlite3.Connection, sql: str) -> int:
    row = cx.execute(sql).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
