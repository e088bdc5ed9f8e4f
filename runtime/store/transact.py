"""From writes and queries to the bodies that carry them out, on one connection.

Plain synchronous functions: they run on aiosqlite's thread in production and inline in a
simulation.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any

from autoglm.errors import AutoGLMError
from runtime.store import (
    backlog,
    breakers,
    census,
    checkpoints,
    chores,
    deadletters,
    editing,
    endings,
    execution,
    exporting,
    intake,
    pruning,
    queues,
    reading,
    recording,
    steering,
)
from runtime.store import checkpointprotocol as cp
from runtime.store import deadprotocol as dead
from runtime.store import graphprotocol as gp
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import queueprotocol as qp
from runtime.store import scheduleprotocol as sp
from runtime.store import upkeepprotocol as up
from runtime.store.faults import use_up
from runtime.store.opening import unusable
from runtime.store.overflow import pass_watch_on
from runtime.store.transaction import Counters, Ranking, Transaction

log = logging.getLogger("autoglm.store")

_WRITES: dict[type[p.Write], Callable[[Transaction, Any], Any]] = {
    gp.InsertGraph: intake.insert_graph,
    jp.OpenJob: intake.open_job,
    jp.InsertLines: intake.insert_lines,
    p.ClaimTasks: execution.claim_tasks,
    p.RecordOutcomes: recording.record_outcomes,
    p.PutBack: execution.put_back,
    cp.SaveCheckpoints: checkpoints.save_checkpoints,
    p.CancelTasks: endings.cancel_tasks,
    p.ReleaseDue: endings.release_due,
    editing.EditTasks: editing.edit_tasks,
    steering.SteerTasks: steering.steer_tasks,
    up.PruneTasks: pruning.prune_tasks,
    up.PruneEvents: pruning.prune_events,
    up.DoChore: chores.do_chore,
    dead.RetryDead: deadletters.retry_dead,
    dead.DiscardDead: deadletters.discard_dead,
    dead.EditDead: deadletters.edit_dead,
    up.RememberBreaker: breakers.remember_breaker,
    qp.BeginServing: queues.begin_serving,
    qp.SetQueue: queues.set_queue,
    qp.SteerQueue: queues.steer_queue,
}
_WRITES_TOGETHER: dict[type[p.Write], Callable[[Transaction, Any], list[Any]]] = {
    p.InsertTasks: intake.insert_tasks,
}
"""Bodies that take all the writes of their kind that stand together, and give a result for each."""
_QUERIES: dict[type[p.Query], Callable[[sqlite3.Connection, Any], Any]] = {
    p.FetchAnswers: reading.fetch_answers,
    p.FetchTasks: reading.fetch_tasks,
    p.FetchEvents: reading.fetch_events,
    jp.FetchJobLines: reading.fetch_job_lines,
    sp.FetchBacklog: backlog.fetch_backlog,
    sp.FetchSchedule: backlog.fetch_schedule,
    backlog.FetchStanding: backlog.fetch_standing,
    p.FetchSummary: reading.fetch_summary,
    dead.FetchDeadLetters: deadletters.fetch_dead_letters,
    dead.FetchDeadLetter: deadletters.fetch_dead_letter,
    up.FetchBreakers: breakers.fetch_breakers,
    census.TakeCensus: census.take_census,
    exporting.FetchExport: exporting.fetch_export,
    exporting.FetchIds: exporting.fetch_ids,
}

_COUNT = """
INSERT INTO tally VALUES (?, ?) ON CONFLICT DO UPDATE SET tasks = tasks + excluded.tasks
"""
"""Counted as they change: counting five million rows takes seconds that a start does not have."""


def answer(cx: sqlite3.Connection, query: p.Query) -> Any:
    """The answer to a query. Raises NotFound."""
    return _QUERIES[type(query)](cx, query)


def transact(
    cx: sqlite3.Connection,
    counters: Counters,
    writes: Sequence[p.Write],
    now_ms: int,
    ranking: Ranking,
    *,
    full: bool = False,
) -> p.Committed:
    """All of `writes` in one transaction; if one breaks, again with a savepoint around each.

    `full`: the disk is, for a drill (runtime.store.faults).
    """
    try:
        return _attempt(cx, counters, writes, now_ms, ranking, savepoints=False, full=full)
    except Exception as error:
        if unusable(error):
            raise  # the disk or the file: a second try would only hide it
        log.exception("a write failed in a group commit; trying each by itself")
        return _attempt(cx, counters, writes, now_ms, ranking, savepoints=True, full=full)


def _attempt(
    cx: sqlite3.Connection,
    counters: Counters,
    writes: Sequence[p.Write],
    now_ms: int,
    ranking: Ranking,
    *,
    savepoints: bool,
    full: bool,
) -> p.Committed:
    results: list[Any] = []
    merged = p.Effects()
    cx.execute("BEGIN IMMEDIATE")
    try:
        for kind, together in _groups(writes, one_by_one=savepoints):
            tx = Transaction(cx, counters, now_ms, ranking)
            if savepoints:
                cx.execute("SAVEPOINT one")
            try:
                results += _carry_out(tx, kind, together)
                tx.finish()
                pass_watch_on(tx)
            except AutoGLMError as refusal:
                assert len(together) == 1, "one refusal for many writes"
                results.append(refusal)  # raised before anything was changed
            except Exception as error:
                if not savepoints or unusable(error):
                    raise
                cx.execute("ROLLBACK TO one")
                results.append(p.StoreError(f"{kind.__name__} failed: {error}"))
            else:
                _merge(merged, tx.effects)
            if savepoints:
                cx.execute("RELEASE one")
        cx.executemany(_COUNT, merged.counts.items())
        if full:
            use_up(cx)
        cx.execute("COMMIT")
    except BaseException:
        if cx.in_transaction:
            cx.execute("ROLLBACK")
        raise
    return p.Committed(tuple(results), merged)


def _groups(
    writes: Sequence[p.Write], *, one_by_one: bool
) -> Iterator[tuple[type[p.Write], list[p.Write]]]:
    """The writes in order, those of one kind together where their body takes many."""
    for kind, together in groupby(writes, type):
        if kind in _WRITES_TOGETHER and not one_by_one:
            yield kind, list(together)
        else:
            for write in together:
                yield kind, [write]


def _carry_out(tx: Transaction, kind: type[p.Write], writes: list[p.Write]) -> list[Any]:
    if kind in _WRITES_TOGETHER:
        return _WRITES_TOGETHER[kind](tx, writes)
    return [_WRITES[kind](tx, write) for write in writes]


def _merge(into: p.Effects, more: p.Effects) -> None:
    for lane, keys in more.gone.items():
        into.gone.setdefault(lane, []).extend(keys)
        if lane in into.ready:
            into.ready[lane] = [key for key in into.ready[lane] if key not in keys]
        moved = {seq for _, seq in keys}
        into.urgent = [seq for seq in into.urgent if seq not in moved]
    for lane, keys in more.ready.items():
        into.ready.setdefault(lane, []).extend(keys)
    into.urgent += more.urgent
    into.begins.update(more.begins)
    into.left += more.left
    into.endings += more.endings
    into.stopped += more.stopped
    into.jobs |= more.jobs
    into.chores |= more.chores
    into.queues.update(more.queues)
    into.paused.update(more.paused)
    for lane, change in more.waiting.items():
        into.waiting[lane] = into.waiting.get(lane, 0) + change
    into.overflowed.update(more.overflowed)
    for tenant, count in more.taken_in.items():
        into.taken_in[tenant] = into.taken_in.get(tenant, 0) + count
    for state, change in more.counts.items():
        into.counts[state] = into.counts.get(state, 0) + change
    due = [at for at in (into.next_due_ms, more.next_due_ms) if at is not None]
    into.next_due_ms = min(due, default=None)
