"""What must hold when the dust has settled: read from the event log, the tables and the histories.

Safety only: that everything is answered in the end is the simulation's own time-out.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator

import msgspec

from actors.policy.rules import ConfiguredRules
from autoglm.types import TaskState
from runtime.store.protocol import FetchAnswers
from runtime.store.reading import fetch_answers
from runtime.store.transitions import legal
from tests.simulation.graphs import HOUR_MS, wrong_with_graphs, wrong_with_urgency
from tests.simulation.limited import wrong_with_limits
from tests.simulation.people import History, expected_text, system_of
from tests.simulation.plan import DEFAULT_TEXT, FAILING, POISON, Plan
from tests.simulation.steering import wrong_with_waits


class Row(msgspec.Struct, frozen=True):
    seq: int
    id: str
    state: TaskState
    attempt: int
    failures: int
    text: str | None
    error: str | None
    tenant: str
    degraded: str | None
    last_event: int
    tokens: int | None
    answer_tokens: int | None
    cost: int
    """Tokens that all its attempts took."""


def violations(cx: sqlite3.Connection, plan: Plan, history: History) -> list[str]:
    """Everything that is wrong, in words; nothing when all is well."""
    rows = {row.id: row for row in _rows(cx)}
    found = list(history.wrong)
    found += (f"{id} was acknowledged and is lost" for id in history.acknowledged if id not in rows)
    for row in rows.values():
        found += _wrong_with_task(row, plan, history)
    found += _wrong_with_degraded(rows, history)
    found += _wrong_with_queues(cx, history)
    found += _wrong_with_events(cx, rows)
    found += _wrong_with_tally(cx)
    found += _wrong_with_checkpoints(cx)
    found += _wrong_with_caps(cx, plan)
    found += wrong_with_limits(cx, plan)
    found += wrong_with_waits(cx, plan)
    found += _wrong_with_times(cx, history)
    found += _wrong_with_cancelled(rows, history)
    found += wrong_with_graphs(cx, history.after, history.run)
    found += wrong_with_urgency(
        cx, history.after, plan.config.scheduler.policy, sliced=plan.small_slices
    )
    found += _wrong_with_answers(cx, history)
    found += _wrong_with_edits(cx, history)
    for job in history.lines:
        found += _wrong_with_job(job, history)
    return found


def _rows(cx: sqlite3.Connection) -> Iterator[Row]:
    for seq, id, state, *rest in cx.execute(
        "SELECT t.seq, t.id, t.state, t.attempt, t.failures, r.text, t.error, t.tenant,"
        " t.degraded, t.last_event, r.prompt_tokens + r.completion_tokens, r.completion_tokens,"
        " (SELECT sum(cost) FROM event e WHERE e.task = t.seq)"
        " FROM task t LEFT JOIN result r ON r.task = t.seq ORDER BY t.seq"
    ):
        yield Row(seq, id, TaskState(state), *rest)


def _wrong_with_task(row: Row, plan: Plan, history: History) -> Iterator[str]:
    prompt = history.prompts.get(row.id)
    if prompt is None:
        yield f"{row.id} was never handed in"
        return
    if (row.text is not None) != (row.state is TaskState.SUCCEEDED):
        yield f"{row.id} is {row.state} and its result is {row.text!r}"
    expected = expected_text(prompt, plan.tokens) if row.degraded != "default" else DEFAULT_TEXT
    if row.text is not None and row.text != expected:
        yield f"{row.id}: wrong answer {row.text!r} to {prompt!r}"
    if row.text is not None and row.degraded is None:
        asked = len(prompt.split()) + len(system_of(prompt))  # a system message is one word here
        if (row.tokens, row.answer_tokens) != (asked + plan.tokens, plan.tokens):
            yield f"{row.id}: usage of {row.tokens} tokens, {row.answer_tokens} of the answer"
        if not failures_of(prompt) and row.cost > (row.tokens or 0):
            yield f"{row.id} was charged {row.cost} tokens for an answer of {row.tokens}"
    waited = row.error is not None and "queue_wait" in row.error
    if row.state is TaskState.EXPIRED and row.id not in history.expires_at and not waited:
        yield f"{row.id} expired and has no time to"
    failures = failures_of(prompt)
    if row.failures > failures:
        yield f"{row.id} ({prompt!r}) was charged {row.failures} failures: {row.error}"
    if row.state is TaskState.DEAD and row.failures < max(1, failures):
        yield f"{row.id} ({prompt!r}) is dead after {row.failures} failures: {row.error}"


def failures_of(prompt: str) -> int:
    """How often it fails before it is dead."""
    if any(mark in prompt for mark in POISON):
        return 1
    return next((count for mark, count in FAILING.items() if mark in prompt), 0)


def _wrong_with_degraded(rows: dict[str, Row], history: History) -> Iterator[str]:
    """What no engine answered is marked, cost nothing, and was answered to the same tenant before
    if it says so; what an engine answered is not marked.
    """
    for row in rows.values():
        if row.state is not TaskState.SUCCEEDED:
            if row.degraded:
                yield f"{row.id} is {row.state} and {row.degraded}"
            continue
        if (row.degraded is None) != bool(row.attempt):
            yield f"{row.id} was answered by attempt {row.attempt} and is {row.degraded}"
        if row.degraded and row.tokens:
            yield f"{row.id} is {row.degraded} and took {row.tokens} tokens"
        if row.degraded == "cached" and not any(
            other.last_event < row.last_event
            and (other.state, other.degraded) == (TaskState.SUCCEEDED, None)
            and (other.tenant, other.text) == (row.tenant, row.text)
            and history.prompts.get(other.id) == history.prompts.get(row.id)
            for other in rows.values()
        ):
            yield f"{row.id} is answered as nothing of its tenant was before: {row.text!r}"


def _wrong_with_queues(cx: sqlite3.Connection, history: History) -> Iterator[str]:
    kept = dict(cx.execute("SELECT queue, degrade FROM queue_setting"))
    for name, degrade in history.queues.items():
        if kept.get(name) != degrade:
            yield f"queue {name} was set to {degrade}, the store says {kept.get(name)}"


def _wrong_with_cancelled(rows: dict[str, Row], history: History) -> Iterator[str]:
    """A task is cancelled by somebody, or by the end of one that it waits for."""
    for row in rows.values():
        upstream = [rows[id].state for id in history.after.get(row.id, ()) if id in rows]
        held_up = any(state is not TaskState.SUCCEEDED for state in upstream)
        held_up |= any(id in history.reopened for id in history.after.get(row.id, ()))
        held_up &= row.id not in history.run
        if row.state is TaskState.CANCELLED and row.id not in history.cancelled and not held_up:
            yield f"{row.id} is cancelled and nobody asked for it"


def _wrong_with_events(cx: sqlite3.Connection, rows: dict[str, Row]) -> Iterator[str]:
    states: dict[int, TaskState | None] = {}
    attempts: dict[int, int] = {}
    charged: dict[int, int] = {}
    degraded = {row.seq for row in rows.values() if row.degraded}
    for task, left, reached, attempt in cx.execute(
        "SELECT task, from_state, to_state, attempt FROM event ORDER BY seq"
    ):
        before = None if left is None else TaskState(left)
        after = TaskState(reached)
        if states.get(task) is not before:
            yield f"task {task}: {before} -> {after}, but it was {states.get(task)}"
        if (before, after) == (TaskState.PENDING, TaskState.SUCCEEDED) and task not in degraded:
            yield f"task {task}: {before} -> {after}, and it is not degraded"
        if not legal(before, after):
            yield f"task {task}: {before} -> {after} is illegal"
        due = attempts.get(task, 0) + (after is TaskState.RUNNING)
        if attempt != due:
            yield f"task {task}: {before} -> {after} by attempt {attempt}, when {due} was current"
        states[task], attempts[task] = after, due
        failed = after in (TaskState.RETRYING, TaskState.DEAD) and before is not after
        charged[task] = charged.get(task, 0) + failed
        if before is TaskState.DEAD and after is TaskState.PENDING:
            charged[task] = 0  # somebody retried it
    for row in rows.values():
        if states.get(row.seq) is not row.state:
            yield f"{row.id} is {row.state}, the log says {states.get(row.seq)}"
        if attempts.get(row.seq) != row.attempt:
            yield f"{row.id} has attempt {row.attempt}, the log says {attempts.get(row.seq)}"
        if charged.get(row.seq) != row.failures:
            yield f"{row.id} has {row.failures} failures, the log says {charged.get(row.seq)}"


def _wrong_with_tally(cx: sqlite3.Connection) -> Iterator[str]:
    counted = dict(cx.execute("SELECT state, count(*) FROM task GROUP BY state"))
    kept = dict(cx.execute("SELECT state, tasks FROM tally WHERE tasks != 0"))
    if counted != kept:
        yield f"the tally says {kept}, a count {counted}"


def _wrong_with_checkpoints(cx: sqlite3.Connection) -> Iterator[str]:
    """They are of tasks that are open."""
    for id, state in cx.execute(
        "SELECT t.id, t.state FROM checkpoint c LEFT JOIN task t ON t.seq = c.task"
        " WHERE t.seq IS NULL OR t.finished_at IS NOT NULL OR t.state = 'retrying'"
    ):
        yield f"{id} is {state} and has a checkpoint"


def _wrong_with_caps(cx: sqlite3.Connection, plan: Plan) -> Iterator[str]:
    """Never more of a queue or a tenant at once than may run."""
    rules = ConfiguredRules(plan.config)
    running: Counter[tuple[str, str]] = Counter()
    for before, after, queue, tenant in cx.execute(
        "SELECT from_state, to_state, queue, tenant FROM event JOIN task ON task.seq = event.task"
        " ORDER BY event.seq"
    ):
        change = (after == TaskState.RUNNING) - (before == TaskState.RUNNING)
        for what, name, cap in (
            ("queue", queue, rules.queue_cap(queue)),
            ("tenant", tenant, rules.tenant_cap(tenant)),
        ):
            running[what, name] += change
            if cap is not None and running[what, name] > cap:
                yield f"{running[what, name]} of {what} {name} run at once, the cap is {cap}"


def _wrong_with_times(cx: sqlite3.Connection, history: History) -> Iterator[str]:
    """Whatever the clock did: who comes later ranks no better, and nothing ends before its time."""
    latest = 0
    for id, rank, priority, created_at in cx.execute(
        "SELECT id, rank, priority, created_at FROM task ORDER BY seq"
    ):
        if created_at < latest:
            yield f"{id} ranks before what came earlier"
        latest = max(latest, created_at)
        if rank > created_at + priority * HOUR_MS:
            yield f"{id} ranks behind where it belongs"
    for id, at in cx.execute(
        "SELECT t.id, e.at FROM event e JOIN task t ON t.seq = e.task WHERE e.to_state = 'expired'"
        " AND t.error ->> '$.code' = 'expired'"
    ):
        if at < history.expires_at.get(id, 0):
            yield f"{id} expired at {at}, before its time {history.expires_at[id]}"


def _wrong_with_answers(cx: sqlite3.Connection, history: History) -> Iterator[str]:
    """What somebody was told is what the store says: it was durable when it was told."""
    stored = fetch_answers(cx, FetchAnswers(None, tuple(history.answers)))
    for id, told in history.answers.items():
        if stored.get(id) != told:
            yield f"{id}: told {told}, the store says {stored.get(id)}"


def _wrong_with_edits(cx: sqlite3.Connection, history: History) -> Iterator[str]:
    """Who was told that a task is edited finds it so, with its name in the log."""
    for id, priority in history.edited.items():
        row = cx.execute("SELECT priority FROM task WHERE id = ?", (id,)).fetchone()
        if row != (priority,):
            yield f"{id} was edited to priority {priority} and has {row}"
    for task, before, after, by in cx.execute(
        "SELECT task, from_state, to_state, by FROM event WHERE from_state = to_state"
    ):
        if by is None or before == TaskState.RUNNING:
            yield f"task {task}: {before} -> {after} by {by}"


def _wrong_with_job(job: str, history: History) -> Iterator[str]:
    got = [line.custom_id for line in history.lines[job]]
    wanted = history.wanted_lines[job]
    if sorted(map(str, got)) != sorted(wanted):
        yield f"job {job}: handed in {wanted}, got {got}"
    for line in history.lines[job]:
        if line.error is not None:
            yield f"job {job}: line {line.line} is an error: {line.error}"
        elif line.answer is None or wanted[line.line - 1] != line.custom_id:
            yield f"job {job}: line {line.line} is not what it was: {line}"
