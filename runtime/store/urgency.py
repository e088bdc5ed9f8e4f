"""What an urgent task waits for becomes urgent: ranks and priorities handed up the dependencies.

What waits for another hands on the better of its rank and the better of its priority, to all that
have not ended, and so on upwards. Whoever has as good already has handed it on already, so the
walk ends there. Nothing is taken back, should the urgent one be cancelled: the rank only improves.

`priority` stays what was asked for; `inherited` is what the task goes by, where that is better.
A walk that gets long is left to the chores: a row of `hurrying` is a task that has it to hand on.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from autoglm.types import TaskState
from runtime.store.rows import execute_rows, json_numbers
from runtime.store.transaction import Transaction

HURRY_SLICE = 4096
"""Tasks that one write moves forward."""

_GIVE = """
UPDATE task SET rank = min(rank, :rank), inherited =
    nullif(min(coalesce(inherited, priority), :priority), priority)
FROM blocker b
WHERE b.task = :task AND task.seq = b.upstream AND task.finished_at IS NULL
  AND (task.rank > :rank OR coalesce(task.inherited, task.priority) > :priority)
RETURNING task.seq, task.state, task.queue, task.tenant, task.rank,
    coalesce(task.inherited, task.priority)
"""
_MORE_URGENT = """
SELECT DISTINCT t.seq FROM json_each(?) given CROSS JOIN task t ON t.seq = given.value
CROSS JOIN blocker b ON b.task = t.seq CROSS JOIN task u ON u.seq = b.upstream
WHERE u.finished_at IS NULL AND (u.rank > t.rank
  OR coalesce(u.inherited, u.priority) > coalesce(t.inherited, t.priority))
"""
_TAKE = """
UPDATE task SET rank = min(rank, coalesce(best_rank, rank)),
                inherited = nullif(min(priority, coalesce(best_priority, priority)), priority)
FROM (
    SELECT min(t.rank) AS best_rank, min(coalesce(t.inherited, t.priority)) AS best_priority
    FROM blocker b CROSS JOIN task t ON t.seq = b.task
    WHERE b.upstream = :task AND t.state = 'blocked'
)
WHERE seq = :task RETURNING rank
"""


def inherit(tx: Transaction, task: int) -> int:
    """For a task whose rank or priority was set anew: it takes what those that wait for it have,
    and hands on what it has now. Returns its rank; whoever set it tells the scheduler.
    """
    (row,) = tx.cx.execute(_TAKE, {"task": task}).fetchall()
    hand_on(tx, [task])
    return row[0]


def hand_on(tx: Transaction, tasks: Iterable[int]) -> None:
    """What these wait for becomes as urgent as they are.

    The newest first: who waits is newer than what it waits for, so each is looked at once.
    """
    found = tx.cx.execute(_MORE_URGENT, (json_numbers(tasks),)).fetchall()
    waiting = [-task for (task,) in found]
    heapq.heapify(waiting)
    entered = set(waiting)
    while waiting and tx.hurried < HURRY_SLICE:
        task = -heapq.heappop(waiting)
        has = tx.cx.execute(
            "SELECT rank, coalesce(inherited, priority) FROM task WHERE seq = ?", (task,)
        ).fetchone()
        given = {"task": task, "rank": has[0], "priority": has[1]}
        rows = tx.cx.execute(_GIVE, given).fetchall()
        tx.hurried += len(rows)
        for seq, state, queue, tenant, rank, priority in rows:
            if -seq not in entered:
                entered.add(-seq)
                heapq.heappush(waiting, -seq)
            if state == TaskState.PENDING:
                tx.ready(queue, tenant, rank, seq)
                tx.urgent(seq, priority)
    if waiting:
        rows = [(-task,) for task in waiting]
        execute_rows(tx.cx, "INSERT OR IGNORE INTO hurrying {rows}", rows)
        tx.effects.chores = True


def hurry_on(tx: Transaction) -> bool:
    """Go on with what was left. Whether there was any."""
    rows = tx.cx.execute(
        "DELETE FROM hurrying WHERE task IN (SELECT task FROM hurrying ORDER BY task DESC LIMIT ?)"
        " RETURNING task",
        (HURRY_SLICE,),
    ).fetchall()
    hand_on(tx, [task for (task,) in rows])
    return bool(rows)
