"""Transaction bodies by which people take pending tasks out of the line and put them back.

    pause     pending, retrying ─▶ paused      requeue   archived ─▶ pending
    resume    paused ─▶ pending                  drain     paused ─▶ pending

What is in another state stays as it is, so a repeat changes nothing. A job that is drained takes no
more lines until it is resumed; a task takes nothing in anyway, so draining one is to resume it.
"""

from __future__ import annotations

from autoglm.errors import NotFound
from autoglm.types import TaskState
from autoglm.wire import Deed
from runtime.store.protocol import Settled, Write
from runtime.store.transaction import Transaction

SLICE = 500
"""Tasks looked at in one transaction: what the commits behind it wait for."""

_FROM: dict[Deed, tuple[TaskState, ...]] = {
    "pause": (TaskState.PENDING, TaskState.RETRYING),
    "resume": (TaskState.PAUSED,),
    "drain": (TaskState.PAUSED,),
    "requeue": (TaskState.ARCHIVED,),
}


class SteerTasks(Write, frozen=True):
    """Result: `Settled`. `tenant` None: the operator's reach.

    Of a job, or of `every` archived task, a slice: go on with `after` until the result's `next` is
    None.
    """

    deed: Deed
    tenant: str | None
    ids: tuple[str, ...] = ()
    job: str | None = None
    every: bool = False
    after: int = 0
    by: str | None = None


def steer_tasks(tx: Transaction, write: SteerTasks) -> Settled:
    tenant = write.tenant
    if write.job is not None:
        found = tx.cx.execute(
            "SELECT 1 FROM job WHERE id = ? AND (? IS NULL OR tenant = ?)",
            (write.job, tenant, tenant),
        )
        if found.fetchone() is None:
            raise NotFound(f"no job {write.job}")
        if write.deed in ("resume", "drain"):
            draining = write.deed == "drain"
            tx.cx.execute("UPDATE job SET draining = ? WHERE id = ?", (draining, write.job))
    tx.by = write.by
    known: list[str] = []
    unknown: list[str] = []
    count = 0
    for id in write.ids:
        row = tx.cx.execute(
            "SELECT seq FROM task WHERE id = ? AND (? IS NULL OR tenant = ?)", (id, tenant, tenant)
        ).fetchone()
        (known if row else unknown).append(id)
        if row:
            count += _steer(tx, write.deed, row[0])
    after: int | None = None
    if write.job is not None or write.every:
        which = "job = ?" if write.job is not None else "state = 'archived' AND ? IS NULL"
        seqs = tx.cx.execute(
            f"SELECT seq FROM task WHERE {which} AND seq > ? AND (? IS NULL OR tenant = ?)"  # noqa: S608
            " ORDER BY seq LIMIT ?",
            (write.job, write.after, tenant, tenant, SLICE),
        ).fetchall()
        count += sum(_steer(tx, write.deed, seq) for (seq,) in seqs)
        after = seqs[-1][0] if len(seqs) == SLICE else None
    return Settled(tuple(known), tuple(unknown), count, after)


def _steer(tx: Transaction, deed: Deed, seq: int) -> int:
    """Returns 1, or 0 where the task is in no state for it."""
    text, queue, tenant, rank, attempt, last_event = tx.cx.execute(
        "SELECT state, queue, tenant, rank, attempt, last_event FROM task WHERE seq = ?", (seq,)
    ).fetchone()
    before = TaskState(text)
    if before not in _FROM[deed]:
        return 0
    after = TaskState.PAUSED if deed == "pause" else TaskState.PENDING
    event = tx.move(seq, before, after, attempt, last_event)
    tx.cx.execute(
        "UPDATE task SET state = ?, wake_at = expires_at, last_event = ?,"
        " error = iif(? = 'requeue', NULL, error) WHERE seq = ?",
        (after, event, deed, seq),
    )
    if after is TaskState.PENDING:
        tx.ready(queue, tenant, rank, seq)
    return 1
