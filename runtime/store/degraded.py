"""Answers recorded without an engine: what stands in for new tasks while no engine can serve.

A task is answered in the transaction that accepts it: pending, then succeeded, without an attempt
and without a token. Its mark says how for as long as it is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from autoglm.errors import EngineUnavailable
from autoglm.given import queue_of
from autoglm.types import Answer, ErrorInfo, Output, Task, TaskSpec, TaskState, Usage
from autoglm.wire import Accepted, JobLine
from runtime.store import same
from runtime.store.protocol import Ending
from runtime.store.rows import execute_rows, more_text
from runtime.store.standin import StandIn, StandIns
from runtime.store.transaction import Transaction

COPIED_CHARS_MAX = 64 * 1024 * 1024
"""Of earlier answers in one transaction; tasks beyond it wait, as where there is none."""

_ANSWERED = """
UPDATE task SET state = 'succeeded', finished_at = ?, wake_at = NULL, degraded = ?, last_event = ?
WHERE seq = ?
"""


class Stored(NamedTuple):
    """What became of a task that was handed in, and its number if it is in the store."""

    accepted: Accepted
    seq: int | None = None


def refuse_lines(lines: Sequence[JobLine], standins: StandIns) -> None:
    """Raises EngineUnavailable where a queue of theirs refuses: they are to be handed in again."""
    for line in lines:
        standin = standins.get(queue_of(line.task)) if line.task is not None else None
        if standin is not None and standin.mode == "fail_fast":
            raise EngineUnavailable(standin.text, retry_after=standin.retry_after)


def refused(spec: TaskSpec, standins: StandIns) -> Stored | None:
    """That a queue refuses the task, if it does."""
    standin = standins.get(queue_of(spec))
    if standin is None or standin.mode != "fail_fast":
        return None
    error = ErrorInfo(EngineUnavailable.code, standin.text)
    return Stored(Accepted(error=error, retry_after=standin.retry_after))


def answer(
    tx: Transaction,
    new: Sequence[tuple[TaskSpec, str]],
    stored: Sequence[Stored],
    standins: StandIns,
) -> list[Stored]:
    """Answer those of the tasks, just stored as pending, that something stands in for."""
    outcome: list[Stored] = []
    results: list[tuple[object, ...]] = []
    answered: set[int] = set()
    for (spec, body), each in zip(new, stored, strict=True):
        task, standin = each.accepted.task, standins.get(queue_of(spec))
        output = None
        if task is not None and standin is not None and not _expired(tx, task):
            output = _output(tx, spec, body, standin)
        if output is None or task is None or each.seq is None:
            outcome.append(each)
            continue
        answered.add(each.seq)
        results.append((each.seq, output.text, output.finish_reason, 0, 0, 0, more_text(output)))
        outcome.append(Stored(Accepted(_end(tx, task, each.seq, output)), each.seq))
    execute_rows(tx.cx, "INSERT INTO result {rows}", results)
    if answered:
        tx.not_ready(answered)
    return outcome


def _output(tx: Transaction, spec: TaskSpec, body: str, standin: StandIn) -> Output | None:
    if standin.mode == "default":
        return Output(standin.text, "stop", Usage(), "default")
    output = same.find(tx, spec, body)
    if output is None or tx.copied_chars + len(output.text) > COPIED_CHARS_MAX:
        return None
    tx.copied_chars += len(output.text)
    return output


def _end(tx: Transaction, task: Task, seq: int, output: Output) -> Task:
    """The task as it stands answered. Lines and dependants it has none yet."""
    (prev,) = tx.cx.execute("SELECT last_event FROM task WHERE seq = ?", (seq,)).fetchone()
    event = tx.move(seq, TaskState.PENDING, TaskState.SUCCEEDED, 0, prev)
    tx.cx.execute(_ANSWERED, (tx.now_ms, output.degraded, event, seq))
    task = msgspec.structs.replace(
        task,
        state=TaskState.SUCCEEDED,
        finished_at=tx.now_ms,
        degraded=output.degraded,
        version=event,
    )
    tx.effects.endings.append(Ending(task.id, (), Answer(task, output)))
    return task


def _expired(tx: Transaction, task: Task) -> bool:
    return task.expires_at is not None and task.expires_at <= tx.now_ms
