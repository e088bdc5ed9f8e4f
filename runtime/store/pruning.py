"""Transaction bodies that remove what is old, a slice at a time: an ordinary write each, and short.

A task goes with its payload, result and events, its id and key become free. A job goes as a whole:
its row first, so that nobody takes up or reads a job of which a part is missing, then its lines
and their tasks, slice by slice; what is left of it is a row of `chore`, which outlives a crash.
A task that lines of several jobs share goes with the last of them.
"""

from __future__ import annotations

import msgspec

from autoglm.types import TaskState
from runtime.store.rows import chunked, json_numbers, marks
from runtime.store.transaction import Transaction
from runtime.store.upkeepprotocol import Place, Pruned, PruneEvents, PruneTasks

SLICE_TASKS = 250
"""Tasks in one transaction: what the commits behind it wait for."""
SLICE_EVENTS = 1000

_FREE_TASKS = """
SELECT finished_at, seq, EXISTS (SELECT 1 FROM job_line WHERE job_line.task = task.seq)
FROM task
WHERE job IS NULL AND finished_at < ? AND (finished_at, seq) > (?, ?)
ORDER BY finished_at, seq LIMIT ?
"""
_JOBS_OVER = """
SELECT id FROM job
WHERE (sealed > 0 OR current = 0) AND ended = lines AND max(created_at, sealed) < ?1
  AND coalesce((SELECT t.finished_at FROM job_line l JOIN task t ON t.seq = l.task
                WHERE l.job = job.id AND l.ended IS NOT NULL
                ORDER BY l.ended DESC LIMIT 1), 0) < ?1
  AND NOT EXISTS (SELECT 1 FROM job_line l JOIN task t ON t.seq = l.task  -- retried since
                  WHERE l.job = job.id AND coalesce(t.finished_at, ?1) >= ?1)
ORDER BY rowid LIMIT ?2
"""
_DELETE_LOG = """
DELETE FROM event WHERE seq IN (
    WITH RECURSIVE log (seq, prev) AS (
        SELECT e.seq, e.prev FROM task t JOIN event e ON e.seq = t.last_event WHERE t.seq IN ({})
        UNION ALL
        SELECT e.seq, e.prev FROM log JOIN event e ON e.seq = log.prev
    )
    SELECT seq FROM log)
"""


class Tally(msgspec.Struct):
    """What a slice removed."""

    tasks: int = 0
    results: int = 0
    events: int = 0
    jobs: int = 0

    def pruned(self, after: Place | None) -> Pruned:
        return Pruned(self.tasks, self.results, self.events, self.jobs, after)


def prune_tasks(tx: Transaction, write: PruneTasks) -> Pruned:
    """First jobs whose removal has begun, then tasks of no job, then further jobs."""
    tally, after = Tally(), write.after
    room = remove_jobs(tx, SLICE_TASKS, tally)
    rows = tx.cx.execute(_FREE_TASKS, (write.before, *after, room)).fetchall()
    if rows:
        _remove_tasks(tx, [seq for _, seq, held in rows if not held], tally)
        after = rows[-1][:2]
        room -= len(rows)
    jobs = tx.cx.execute(_JOBS_OVER, (write.before, room)).fetchall() if room else []
    for (job,) in jobs:
        if room > 0:
            _begin_removal(tx, job)
            room = remove_jobs(tx, room, tally)
    if room < SLICE_TASKS:
        tx.keep_counters()
    return tally.pruned(after if room <= 0 else None)


def prune_events(tx: Transaction, write: PruneEvents) -> Pruned:
    """Walk the log from its beginning; what belongs to a task that has not ended is passed over."""
    rows = tx.cx.execute(
        "SELECT e.seq, e.at, t.finished_at FROM event e LEFT JOIN task t ON t.seq = e.task"
        " WHERE e.seq > ? ORDER BY e.seq LIMIT ?",
        (write.after[1], SLICE_EVENTS),
    ).fetchall()
    old = [(seq, finished_at) for seq, at, finished_at in rows if at < write.before]
    gone = [seq for seq, finished_at in old if finished_at is not None]
    if gone:
        tx.cx.executemany("DELETE FROM event WHERE seq = ?", ((seq,) for seq in gone))
        tx.keep_counters()
    more = bool(old) and len(rows) == SLICE_EVENTS
    return Tally(events=len(gone)).pruned((0, rows[-1][0]) if more else None)


def remove_jobs(tx: Transaction, room: int, tally: Tally) -> int:
    """Go on with jobs whose removal has begun, `room` lines at most; how much room is left."""
    while room > 0:
        row = tx.cx.execute("SELECT job FROM chore WHERE what = 'remove' LIMIT 1").fetchone()
        if row is None:
            break
        lines = tx.cx.execute(
            "SELECT line, task FROM job_line WHERE job = ? ORDER BY line LIMIT ?", (*row, room)
        ).fetchall()
        if not lines:
            tx.cx.execute("DELETE FROM chore WHERE job = ? AND what = 'remove'", row)
            tally.jobs += 1
            continue
        tx.cx.execute("DELETE FROM job_line WHERE job = ? AND line <= ?", (*row, lines[-1][0]))
        tasks = {task for _, task in lines if task is not None}
        free = [task for task in sorted(tasks) if not _held(tx, task)]
        _remove_tasks(tx, _let_go(tx, free), tally)
        room -= len(lines)
    return room


def _begin_removal(tx: Transaction, job: str) -> None:
    tx.cx.execute("DELETE FROM job WHERE id = ?", (job,))
    tx.cx.execute("INSERT INTO chore (job, what) VALUES (?, 'remove')", (job,))


def _held(tx: Transaction, task: int) -> bool:
    """Whether a line of a job that is still there shares it."""
    found = tx.cx.execute("SELECT 1 FROM job_line WHERE task = ?", (task,))
    return found.fetchone() is not None


def _let_go(tx: Transaction, seqs: list[int]) -> list[int]:
    """Those of them that have ended. A dead letter that somebody retried while its job was being
    removed goes on as a task of its own.
    """
    rows = tx.cx.execute(
        "UPDATE task SET job = NULL FROM json_each(?) gone"
        " WHERE seq = gone.value AND finished_at IS NULL RETURNING seq",
        (json_numbers(seqs),),
    ).fetchall()
    open_ = {seq for (seq,) in rows}
    return [seq for seq in seqs if seq not in open_]


def _remove_tasks(tx: Transaction, seqs: list[int], tally: Tally) -> None:
    """Remove tasks that have ended, with all that belongs to them."""
    for some in chunked(tuple(seqs)):
        these = marks(len(some))
        tally.events += tx.cx.execute(_DELETE_LOG.format(these), some).rowcount
        # A task that was cancelled while it waited for others is still entered as waiting.
        tx.cx.execute(f"DELETE FROM blocker WHERE task IN ({these})", some)  # noqa: S608
        for table in ("payload", "original", "failure", "same"):
            tx.cx.execute(f"DELETE FROM {table} WHERE task IN ({these})", some)  # noqa: S608
        tally.results += tx.cx.execute(
            f"DELETE FROM result WHERE task IN ({these})",  # noqa: S608
            some,
        ).rowcount
        gone = tx.cx.execute(
            f"DELETE FROM task WHERE seq IN ({these}) RETURNING state",  # noqa: S608
            some,
        ).fetchall()
        tally.tasks += len(gone)
        counts = tx.effects.counts
        for (name,) in gone:
            state = TaskState(name)
            assert state.ended, f"a task that is {name} was to be removed"
            counts[state] = counts.get(state, 0) - 1
