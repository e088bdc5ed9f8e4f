"""What a person sees of tasks, events and the status: pure functions from structs to text.

Lines are aligned with blanks, coloured when `Paint` is told so. Everything that came from outside
passes through `autoglm.text`.
"""

from __future__ import annotations

import msgspec

from autoglm.degrade import IN_WORDS
from autoglm.eta import Eta
from autoglm.ids import short
from autoglm.paint import Paint
from autoglm.status import Status
from autoglm.text import ago, clock_time, in_words, one_line, printable
from autoglm.types import Answer, Event, Output, Task, TaskState

STATE_COLOURS = {
    TaskState.RUNNING: "cyan",
    TaskState.RETRYING: "yellow",
    TaskState.SUCCEEDED: "green",
    TaskState.DEAD: "red",
    TaskState.EXPIRED: "red",
    TaskState.CANCELLED: "dim",
}
_TASK_COLUMNS = "{:26}  {:9}  {:12}  {:10}  {:>3}  {:>3}  {:19}  {}"
_NARROW_TASK_COLUMNS = "{:8}  {:9}  {:12}  {:10}  {:>3}  {:>3}  {:11}  {}"
"""For 80 columns."""
_EVENT_COLUMNS = "{:>8}  {:19}  {:26}  {:12}  {:>9} → {:9}  {:>3}  {:>6}"


class Shown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task and its result, as `--json` prints it."""

    id: str
    state: TaskState
    task: Task
    result: Output | None = None
    eta: Eta | None = None


def shown(task: Task, result: Output | None = None, eta: Eta | None = None) -> Shown:
    return Shown(task.id, task.state, task, result, eta)


def task_header(paint: Paint, *, narrow: bool = False) -> str:
    names = ("ID", "STATE", "TENANT", "QUEUE", "PRI", "TRY", "CREATED", "ERROR")
    columns = _NARROW_TASK_COLUMNS if narrow else _TASK_COLUMNS
    return paint(columns.format(*names), "bold")


def task_line(task: Task, paint: Paint, now_ms: int | None = None) -> str:
    """A line of a list. With `now_ms` it is for a person at a terminal: the end of the id, which
    every command takes for it, and how long ago it was.
    """
    line = (_TASK_COLUMNS if now_ms is None else _NARROW_TASK_COLUMNS).format(
        one_line(task.id, 26) if now_ms is None else one_line(short(task.id), 8),
        task.state.value,
        one_line(task.tenant, 12),
        one_line(task.queue, 10),
        task.priority,
        task.attempt,
        clock_time(task.created_at) if now_ms is None else ago(now_ms - task.created_at),
        one_line(task.error.message, 60) if task.error else _mark(task),
    )
    return paint(line.rstrip(), STATE_COLOURS.get(task.state))


def event_header(paint: Paint) -> str:
    names = ("SEQ", "TIME", "TASK", "TENANT", "FROM", "TO", "TRY", "COST")
    return paint(_EVENT_COLUMNS.format(*names), "bold")


def event_line(event: Event, paint: Paint) -> str:
    line = _EVENT_COLUMNS.format(
        event.seq,
        clock_time(event.at),
        one_line(event.task, 26),
        one_line(event.tenant, 12),
        event.from_state.value if event.from_state else "",
        event.to_state.value,
        event.attempt,
        event.cost,
    )
    who = f"  by {one_line(event.by, 20)}" if event.by else ""
    return paint(line + who, STATE_COLOURS.get(event.to_state))


def describe(
    answer: Answer, paint: Paint, eta: Eta | None = None, now_ms: int | None = None
) -> str:
    """A task in full, its answer's text at the end; with `now_ms`, how long ago it all was."""
    task, result = answer.task, answer.result
    moments = {
        "created": task.created_at,
        "started": task.started_at,
        "finished": task.finished_at,
        "deadline": task.deadline_at,
        "expires": task.expires_at,
    }
    facts = {
        "id": task.id,
        "state": task.state.value,
        "tenant": task.tenant,
        "queue": task.queue,
        "priority": _priority(task),
        "kind": task.kind,
        "key": task.key,
        "job": task.job,
        "attempt": str(task.attempt),
        "failures": str(task.failures) if task.failures else None,
        **{name: _moment(at, now_ms) if at else None for name, at in moments.items()},
        "waits for": ", ".join(task.waits_for),
        "after": "runs however those end" if task.after_failure == "run" else None,
        **_expected(eta),
        "error": f"{task.error.message} ({task.error.code})" if task.error else None,
        "degraded": IN_WORDS.get(task.degraded or ""),
    }
    if task.started_at and task.finished_at:
        facts["took"] = in_words((task.finished_at - task.started_at) / 1000)
    if result:
        usage = result.usage
        facts["tokens"] = f"{usage.prompt_tokens} prompt, {usage.completion_tokens} answer"
        facts["finish"] = result.finish_reason
    lines = [
        f"{paint(f'{name:10}', 'bold')}{one_line(value)}" for name, value in facts.items() if value
    ]
    return "\n".join([*lines, "", printable(result.text)] if result else lines)


def _moment(at: int, now_ms: int | None) -> str:
    if now_ms is None or at > now_ms:
        return clock_time(at)
    return f"{clock_time(at)} ({ago(now_ms - at)})"


def _expected(eta: Eta | None) -> dict[str, str | None]:
    """An estimate, in words that say that it is one."""
    if eta is None:
        return {}
    least = "at least " if eta.at_least else "about "
    starts, finishes = eta.starts_in_s, eta.finishes_in_s
    return {
        "ahead": f"{'at least ' if eta.at_least else ''}{eta.ahead}" if starts != 0 else None,
        "starts": f"in {least}{in_words(starts)}" if starts else None,
        "ends": f"in {least}{in_words(finishes)}" if finishes is not None else None,
    }


def batches_line(status: Status) -> str:
    """`batches 12, 3.4 requests each (size 1, window 8, idle 3)`."""
    batches = status.batches
    triggers = ", ".join(f"{one_line(name)} {n}" for name, n in batches.triggers.items())
    why = f" ({triggers})" if triggers else ""
    return f"batches {batches.count}, {batches.mean_size:.1f} requests each{why}"


def all_states(status: Status) -> Status:
    """The status with every state in `tasks`, those without a task as 0."""
    counts = {state.value: status.tasks.get(state.value, 0) for state in TaskState}
    return msgspec.structs.replace(status, tasks=counts | status.tasks)


def _priority(task: Task) -> str:
    if task.inherited_priority is None:
        return str(task.priority)
    return f"{task.priority}, as {task.inherited_priority}: a task of that priority waits for it"


def _mark(task: Task) -> str:
    return f"degraded: {task.degraded}" if task.degraded else ""
