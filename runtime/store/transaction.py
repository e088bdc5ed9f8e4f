"""One transaction in the making: the connection, the time, and what has changed so far.

Bodies are plain synchronous functions on a `Transaction`. They run on aiosqlite's thread in
production and inline in a simulation: the same SQL. Every change of state goes through `move`,
which consults the table of legal transitions and writes the event log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from autoglm.types import ErrorInfo, Message, Sampling, Task, TaskSpec, TaskState
from runtime.store.protocol import Effects
from runtime.store.transitions import legal

V = TypeVar("V")
RankOf = Callable[[TaskSpec, int], int]
"""`(task, logical time in ms) -> rank`: the scheduling policy, handed in."""


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the engine needs and nobody else looks at; equal bytes mean equal content."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()


class IllegalTransition(Exception):
    """A bug of ours: a change of state that is not in the table. Nothing of the write is kept."""


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
        self._counters = counters
        counters.logical_ms = max(counters.logical_ms, now_ms)
        self._events: list[tuple[int, int, str | None, str, int, int, int]] = []

    @property
    def logical_ms(self) -> int:
        """Time that never goes back, whatever the clock did: what ranks are made of."""
        return self._counters.logical_ms

    def new_task(self) -> int:
        self._counters.task += 1
        return self._counters.task

    def move(
        self, seq: int, before: TaskState | None, after: TaskState, attempt: int, cost: int = 0
    ) -> None:
        """Note that task `seq` changes state. Raises IllegalTransition."""
        if not legal(before, after):
            raise IllegalTransition(f"task {seq}: {before} -> {after} is not a legal transition")
        self._counters.event += 1
        self._events.append(
            (self._counters.event, seq, before, after, attempt, self.now_ms, cost),
        )
        counts = self.effects.counts
        counts[after] = counts.get(after, 0) + 1
        if before is not None:
            counts[before] = counts.get(before, 0) - 1

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
        if self._events:
            for event in self._events:
                self.cx.execute(_INSERT_EVENT, event)
                self.cx.execute("UPDATE task SET last_event = ? WHERE seq = ?", event[:2])
            self._events = []


_INSERT_EVENT = """
INSERT INTO event SELECT ?1, ?2, last_event, ?3, ?4, ?5, ?6, ?7 FROM task WHERE seq = ?2
"""
TASK_COLUMNS = (
    "t.id, t.state, t.tenant, t.queue, t.priority, t.kind, t.key, t.job, t.attempt, t.failures,"
    " t.created_at, t.started_at, t.finished_at, t.deadline_at, t.expires_at, t.error"
)
TASK_WIDTH = 16


def task_of(row: tuple[object, ...]) -> Task:
    """The task in the first `TASK_WIDTH` columns, selected as `TASK_COLUMNS`."""
    *plain, error = row[:TASK_WIDTH]
    return Task(plain[0], TaskState(plain[1]), *plain[2:], error_of(error))  # pyright: ignore


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
