"""One transaction in the making: the connection, the time, and what has changed so far.

Bodies are plain synchronous functions on a `Transaction`. They run on aiosqlite's thread in
production and inline in a simulation: the same SQL. Every change of state goes through `move`,
which consults the table of legal transitions and writes the event log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Protocol, TypeVar

import msgspec

from autoglm.types import Message, Sampling, TaskSpec, TaskState, Usage
from runtime.store.limits import WAITING
from runtime.store.protocol import URGENT_PRIORITY, Answered, Effects, Key, Lane, Left
from runtime.store.rows import insert_rows, json_numbers
from runtime.store.transitions import legal

V = TypeVar("V")
Step = tuple[TaskState | None, TaskState]
_NOTHING = Usage()


class Ranking(Protocol):
    """The scheduling policy, handed in. Called on the writing connection's thread alone."""

    def rank(self, task: TaskSpec, logical_ms: int, /) -> int:
        """Its place in its lane, smaller first, when it is handed in at `logical_ms`."""
        ...

    def beginning(self, task: TaskSpec, /) -> int | None:
        """The same number for tasks that share a long beginning; None: it has none."""
        ...

    def answered(self, answered: Answered, /) -> None:
        """A task was answered: there is something to learn."""
        ...


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an attempt needs and nobody else looks at: the content, and the limits it goes by."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    max_attempts: int | None = None
    attempt_timeout_s: float | None = None


class IllegalTransition(Exception):
    """A bug of ours: a change of state that is not in the table. Nothing of the write is kept."""


_EVENT = ("seq", "task", "prev", "attempt", "cost")
"""Columns of an event that are its own."""
_MOVED = """
SELECT t.tenant, t.queue, count(*), sum(length(CAST(p.body AS BLOB)))
FROM json_each(?) moved CROSS JOIN task t ON t.seq = moved.value JOIN payload p ON p.task = t.seq
GROUP BY t.tenant, t.queue
"""
_COUNT_WAITING = """
INSERT INTO waiting VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks, bytes = bytes + excluded.bytes
"""


_BEGIN_WAITS = """
UPDATE task SET wake_at = min(coalesce(expires_at, ?), ?)
FROM json_each(?) ready WHERE seq = ready.value AND state = 'pending'
"""


class Counters:
    """Numbers that only rise, kept between transactions. Owned by the one writing connection."""

    def __init__(self, cx: sqlite3.Connection) -> None:
        kept = cx.execute("SELECT task, event, logical_ms FROM floor").fetchone() or (0, 0, 0)
        last = "SELECT created_at FROM task ORDER BY seq DESC LIMIT 1"
        self.task = max(kept[0], _largest(cx, "SELECT max(seq) FROM task"))
        self.event = max(kept[1], _largest(cx, "SELECT max(seq) FROM event"))
        self.logical_ms = max(kept[2], _largest(cx, last))
        self.watched: dict[str, int] = {}
        """By queue, the task that says for all of them that they wait too long."""


class Transaction:
    def __init__(
        self, cx: sqlite3.Connection, counters: Counters, now_ms: int, ranking: Ranking
    ) -> None:
        self.cx = cx
        self.now_ms = now_ms
        self.ranking = ranking
        self.effects = Effects()
        self.by: str | None = None
        """Who makes these changes, if it is a person; for the event log."""
        self.copied_chars = 0
        """Of earlier answers that were given again."""
        self.told = 0
        """Tasks looked at because one that they wait for has ended."""
        self.hurried = 0
        """Tasks moved forward because an urgent one waits for them."""
        self.unwatched: set[str] = set()
        """Queues whose watched task is pending no longer."""
        self._counters = counters
        counters.logical_ms = max(counters.logical_ms, now_ms)
        self._moves: dict[Step, list[tuple[int, int, int | None, int, int]]] = {}
        """Events by what changed: number, task, the one before, attempt, cost."""
        self._still: dict[Lane, list[Key]] = {}

    @property
    def logical_ms(self) -> int:
        """Time that never goes back, whatever the clock did: what ranks are made of."""
        return self._counters.logical_ms

    @property
    def newest_task(self) -> int:
        """The number given out last."""
        return self._counters.task

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
        moves = self._moves.get((before, after))
        if moves is None:
            if not legal(before, after):
                what = f"{before} -> {after}"
                raise IllegalTransition(f"task {seq}: {what} is not a legal transition")
            moves = self._moves[before, after] = []
        self._counters.event += 1
        event = self._counters.event
        moves.append((event, seq, prev, attempt, usage.total_tokens))
        if before is TaskState.PENDING:
            watched = self._counters.watched.items()
            self.unwatched.update(queue for queue, each in watched if each == seq)
        elif before is TaskState.RUNNING:
            self.effects.left.append(Left(seq, usage))
        return event

    def ready(self, queue: str, tenant: str, rank: int, seq: int) -> None:
        """Note that a task has become pending."""
        self.effects.ready.setdefault((queue, tenant), []).append((rank, seq))

    def still_ready(self, queue: str, tenant: str, rank: int, seq: int) -> None:
        """Note that a task is pending, as it was: its wait goes on."""
        self._still.setdefault((queue, tenant), []).append((rank, seq))

    def gone(self, queue: str, tenant: str, rank: int, seq: int) -> None:
        """Note that a pending task is no longer at this rank."""
        self.effects.gone.setdefault((queue, tenant), []).append((rank, seq))

    def urgent(self, seq: int, priority: int) -> None:
        """Note that what has become pending just now, or more urgent, is urgent if it is."""
        if priority <= URGENT_PRIORITY:
            self.effects.urgent.append(seq)

    def watch(self, queue: str, seq: int) -> None:
        """Note who is watched from now on."""
        self._counters.watched[queue] = seq
        self.unwatched.discard(queue)

    def not_ready(self, seqs: Collection[int]) -> None:
        """Note that these ended before anybody heard that they were pending."""
        left = {
            lane: [key for key in keys if key[1] not in seqs]
            for lane, keys in self.effects.ready.items()
        }
        self.effects.ready = {lane: keys for lane, keys in left.items() if keys}

    def forget(self) -> None:
        """All rows of this were rolled back: nothing has changed, and nobody is to be told."""
        self.effects, self._moves, self._still = Effects(), {}, {}
        self.told = self.hurried = self.copied_chars = 0

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

    def finish(self) -> None:
        """Write what every change of state brings with it."""
        self._write_events()
        self._count()
        self._count_waiting()
        self._begin_waits()
        for lane, keys in self._still.items():
            self.effects.ready.setdefault(lane, []).extend(keys)
        self._moves, self._still = {}, {}

    def _begin_waits(self) -> None:
        """Note when the wait of what has become pending is over, where its queue has an end."""
        if not self.effects.ready:
            return
        longest = dict(self.cx.execute("SELECT queue, max_wait_ms FROM overflow"))
        for (queue, _), keys in self.effects.ready.items():
            if queue in longest:
                at = self.now_ms + longest[queue]
                self.cx.execute(_BEGIN_WAITS, (at, at, json_numbers(seq for _, seq in keys)))
                self.due(at)

    def _count(self) -> None:
        counts = self.effects.counts
        for (before, after), moves in self._moves.items():
            counts[after] = counts.get(after, 0) + len(moves)
            if before is not None:
                counts[before] = counts.get(before, 0) - len(moves)

    def _count_waiting(self) -> None:
        """A task may have begun to wait and have ceased to, both in this transaction."""
        for (before, after), moves in self._moves.items():
            sign = (after in WAITING) - (before in WAITING)
            if not sign:
                continue
            changes = [
                (tenant, queue, sign * tasks, sign * size)
                for tenant, queue, tasks, size in self.cx.execute(
                    _MOVED, (json_numbers(seq for _, seq, *_ in moves),)
                )
            ]
            total = (sum(each[2] for each in changes), sum(each[3] for each in changes))
            self.cx.executemany(_COUNT_WAITING, [*changes, ("", "", *total)])
            waiting = self.effects.waiting
            for tenant, queue, tasks, _ in changes:
                waiting[queue, tenant] = waiting.get((queue, tenant), 0) + tasks

    def _write_events(self) -> None:
        for (before, after), moves in self._moves.items():
            together = {
                "from_state": None if before is None else before.value,
                "to_state": after.value,
                "at": self.now_ms,
                "by": self.by,
            }
            insert_rows(self.cx, "event", _EVENT, moves, together)


def _largest(cx: sqlite3.Connection, sql: str) -> int:
    row = cx.execute(sql).fetchone()
    return int(row[0]) if row and row[0] is not None else 0
