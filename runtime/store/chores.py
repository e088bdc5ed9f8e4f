"""What a request began and left to be done afterwards, slice by slice.

    cancel   the open tasks of a job whose output was started over with --fresh
    remove   the lines and tasks of a job that was pruned

and, with rows of their own, who has yet to be told of an end (`runtime.store.blocked`) or to
become urgent (`runtime.store.urgency`), and what a queue that answers with earlier results has yet
to look at.

A row of `chore` is the promise that it will be done, whoever dies meanwhile. Until then nobody
may notice the difference: a key that such a job's task still holds is free for the asking.
"""

from __future__ import annotations

from autoglm.types import TaskSpec
from runtime.store import same
from runtime.store.endings import cancel_slice, tell_on
from runtime.store.pruning import SLICE_TASKS, Tally, remove_jobs
from runtime.store.transaction import Transaction
from runtime.store.upkeepprotocol import DoChore
from runtime.store.urgency import hurry_on


def do_chore(tx: Transaction, _write: DoChore) -> bool:
    if tell_on(tx) or hurry_on(tx):
        return True
    row = tx.cx.execute("SELECT job, done FROM chore WHERE what = 'cancel' LIMIT 1").fetchone()
    if row is not None:
        job, done = row
        _, after = cancel_slice(tx, job, None, done)
        if after is None:
            tx.cx.execute("DELETE FROM chore WHERE job = ? AND what = 'cancel'", (job,))
        else:
            tx.cx.execute(
                "UPDATE chore SET done = ? WHERE job = ? AND what = 'cancel'", (after, job)
            )
        return True
    room = remove_jobs(tx, SLICE_TASKS, Tally())
    if room < SLICE_TASKS:
        tx.keep_counters()
    return room == 0 or same.catch_up(tx)


def cancel_later(tx: Transaction, job: str) -> None:
    """Leave the cancelling of a job's open tasks to be done in slices."""
    tx.cx.execute("INSERT INTO chore (job, what) VALUES (?, 'cancel')", (job,))
    tx.effects.chores = True


def free_key(tx: Transaction, spec: TaskSpec) -> None:
    """Take the key of `spec` from a task of a job that was started over or is being removed:
    starting over means new answers.
    """
    tx.cx.execute(
        "UPDATE task SET key = NULL WHERE tenant = ? AND key = ?"
        " AND (EXISTS (SELECT 1 FROM job WHERE job.id = task.job AND current = 0)"
        " OR EXISTS (SELECT 1 FROM chore WHERE chore.job = task.job))",
        (spec.tenant, spec.key),
    )
