"""The parts of the live view: each a table about one thing, out of what the server told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text

from autoglm.degrade import QueueStatus
from autoglm.live.columns import (
    BAD,
    DIM,
    GAP,
    GOOD,
    MIDDLING,
    Column,
    bar,
    beside,
    cell,
    number,
    percent,
    sparkline,
    table,
    width,
)
from autoglm.live.state import QUEUE, TASK
from autoglm.live.view import NAME_CELLS_MAX, View, state
from autoglm.service import Service
from autoglm.show import STATE_COLOURS
from autoglm.status import (
    ActorStatus,
    EngineStatus,
    RecentFailure,
    RunningTask,
    Status,
)
from autoglm.text import in_words
from autoglm.types import TaskState

_BAR_CELLS = 8
_SPARK_CELLS_MIN, _SPARK_CELLS_MAX = 8, 60
_ACTOR_CELLS_MIN = 36
_ACTOR_LINES_KEPT = 5


class Section(NamedTuple):
    """A head and rows. `keys` names what each row is about, for who selects it; empty: nothing."""

    head: Text
    rows: list[Text]
    keys: list[str]
    rank: int
    """Where there is no room, rows of the sections with the largest go first."""
    least: int
    """Rows that stay longest."""


def engines(view: View, cells: int) -> Section:
    columns = (
        Column("ENGINE"),
        Column("STATE"),
        Column("BREAKER", rank=3),
        Column("SLOTS"),
        Column("WAIT", right=True, rank=4),
        Column("KV", right=True, rank=1),
        Column("HITS", right=True, rank=2),
        Column("RESTARTS", right=True, rank=5),
        Column("TOKENS/S", right=True),
    )
    seen = view.status.engines
    head, *lines = table(columns, map(_engine_row, seen), cells - _SPARK_CELLS_MIN - len(GAP))
    room = min(cells - width(head) - len(GAP), _SPARK_CELLS_MAX)
    rows: list[Text] = []
    for engine, line in zip(seen, lines, strict=True):
        history = view.history.get(engine.id, ())
        if room >= _SPARK_CELLS_MIN and history:
            line.append(GAP + sparkline(history, room), style="cyan")
        rows.append(line)
        if engine.error:
            rows.append(cell(engine.error, style=BAD))
    return Section(head, rows, [""] * len(rows), 1, min(4, len(rows)))


def queues(status: Status, cells: int) -> Section:
    """All queues there are, with what they get."""
    rows = [
        (
            _name(queue.name),
            state("draining" if queue.draining else "paused" if queue.paused else "open"),
            *_service_cells(queue.service or _UNSERVED),
            _remarks(queue),
        )
        for queue in status.queues
    ]
    columns = (Column("QUEUE"), Column("STATE"), *_SERVICE, Column("NOTE", rank=9, flexible=True))
    head, *lines = table(columns, rows, cells)
    keys = [f"{QUEUE}{queue.name}" for queue in status.queues]
    return Section(head, lines, keys, 2, min(3, len(lines)))


def tenants(status: Status, cells: int) -> Section:
    """Those with most work first."""
    seen = sorted(status.tenants, key=lambda each: (-each.service.used, -each.service.waiting))
    rows = [(_name(each.name), *_service_cells(each.service), _held(each.service)) for each in seen]
    columns = (Column("TENANT"), *_SERVICE, Column("NOTE", rank=9, flexible=True))
    head, *lines = table(columns, rows, cells)
    return Section(head, lines, [""] * len(lines), 6, min(2, len(lines)))


def slowest(status: Status, cells: int) -> Section:
    columns = (
        Column("SLOWEST TASK"),
        Column("RAN", right=True),
        Column("TENANT", rank=2),
        Column("QUEUE", rank=4),
        Column("PRI", right=True, rank=5),
        Column("TRY", right=True, rank=3),
        Column("ENGINE", rank=6),
        Column("PROMPT", rank=1, flexible=True),
    )
    head, *lines = table(columns, map(_slow_row, status.slowest), cells)
    return Section(head, lines, [f"{TASK}{each.id}" for each in status.slowest], 3, 1)


def failures(view: View, cells: int) -> Section:
    columns = (
        Column("FAILED TASK"),
        Column("AGO", right=True),
        Column("NOW"),
        Column("TRY", right=True, rank=3),
        Column("TENANT", rank=4),
        Column("QUEUE", rank=5),
        Column("ENGINE", rank=6),
        Column("WHY", rank=1, flexible=True),
    )
    seen = view.status.failures
    rows = (_failure_row(each, view.now_ms) for each in seen)
    head, *lines = table(columns, rows, cells)
    return Section(head, lines, [f"{TASK}{each.id}" for each in seen], 4, 1)


def actors(status: Status, cells: int) -> Section:
    """In as many columns as fit, or one with all there is to say when there is room for it."""
    columns = (
        Column("ACTOR"),
        Column("STATE"),
        Column("RESTARTS", right=True, rank=1),
        Column("MAILBOX", right=True, rank=2),
    )
    seen = status.actors
    blocks = max(1, min((cells + 3) // (_ACTOR_CELLS_MIN + 3), len(seen)))
    each_cells = (cells - 3 * (blocks - 1)) // blocks
    high = -(-len(seen) // blocks)
    parts = [seen[start : start + high] for start in range(0, len(seen), high)] if seen else [()]
    tables = [table(columns, map(_actor_row, part), each_cells) for part in parts]
    head, *lines = beside(tables, each_cells)
    return Section(head, lines, [""] * len(lines), 5, min(len(lines), _ACTOR_LINES_KEPT))


_UNSERVED = Service(1.0, None, 0.0, 0, None, 0, None)
_SERVICE = (
    Column("WEIGHT", right=True, rank=4),
    Column("RUNNING", right=True, rank=1),
    Column("WAITING", right=True, rank=2),
    Column("DONE IN", right=True, rank=3),
    Column("DUE", right=True),
    Column("USED", right=True),
    Column("", rank=5),
)


def _service_cells(service: Service) -> Sequence[Text]:
    due, used = service.due, service.used
    short = due is not None and service.waiting > 0 and not service.held and used < due / 2
    style = MIDDLING if short else GOOD
    cap = "" if service.max_running is None else f"/{service.max_running}"
    done = service.finishes_in_s
    return (
        Text(f"{service.weight:g}", style=DIM),
        Text(f"{service.running:,}{cap}", style="" if service.running else DIM),
        Text(f"{service.waiting:,}", style="" if service.waiting else DIM),
        Text("" if done is None else in_words(done)),
        Text(percent(due) or "-", style="" if due else DIM),
        Text(percent(used), style=style if used or short else DIM),
        bar(used, _BAR_CELLS, style),
    )


def _remarks(queue: QueueStatus) -> Text:
    """What holds it, and what it does without an engine, if that is not to wait."""
    remarks = [str(_held(queue.service))] if queue.service and queue.service.held else []
    if queue.draining and queue.paused_by:
        remarks.append(f"drained by {queue.paused_by}")
    if queue.degrade != "queue":
        live = ", set live" if queue.source == "live" else ""
        remarks.append(f"without an engine: {queue.degrade}{live}")
    return cell("; ".join(remarks))


def _held(service: Service) -> Text:
    return cell("; ".join(hold.text for hold in service.held), style=MIDDLING)


def _engine_row(engine: EngineStatus) -> Sequence[Text]:
    slots = bar(engine.running / engine.slots if engine.slots else 0.0, _BAR_CELLS, GOOD)
    full = engine.kv_usage > 0.9
    hits = engine.cached_tokens / engine.prompt_tokens if engine.prompt_tokens else None
    return (
        _name(engine.id),
        state(engine.state),
        _breaker(engine.breaker),
        slots.append(f" {engine.running}/{engine.slots}", style="default"),
        Text(f"{engine.waiting:,}"),
        Text(percent(engine.kv_usage), style=MIDDLING if full else ""),
        Text(percent(hits) or "-"),
        _restarts(engine.restarts),
        Text(number(engine.tokens_per_s), style="bold"),
    )


def _slow_row(task: RunningTask) -> Sequence[Text]:
    return (
        cell(task.id, 26, STATE_COLOURS[TaskState.RUNNING]),
        Text(in_words(task.ran_s)),
        cell(task.tenant, 12),
        cell(task.queue, 12),
        Text(str(task.priority)),
        Text(str(task.attempt)),
        cell(task.engine, 12),
        cell(task.text, style=DIM),
    )


def _failure_row(failure: RecentFailure, now_ms: int) -> Sequence[Text]:
    style = BAD if failure.state == TaskState.DEAD else MIDDLING
    return (
        cell(failure.id, 26, style),
        Text(in_words(max(0, now_ms - failure.at) / 1000)),
        cell(failure.state, 10, style),
        Text(str(failure.attempt)),
        cell(failure.tenant, 12),
        cell(failure.queue, 12),
        cell(failure.engine, 12),
        cell(f"{failure.code}: {failure.message}"),
    )


def _actor_row(actor: ActorStatus) -> Sequence[Text]:
    held = actor.breaker != "closed"
    return (
        _name(actor.name),
        state(f"{actor.state}, breaker {actor.breaker}") if held else state(actor.state),
        _restarts(actor.restarts),
        Text(f"{actor.mailbox:,}", style="" if actor.mailbox else DIM),
    )


def _breaker(word: str) -> Text:
    style = {"closed": GOOD, "half_open": MIDDLING, "open": BAD}.get(word, "")
    return cell(word, NAME_CELLS_MAX, style)


def _restarts(count: int) -> Text:
    return Text(str(count), style=f"bold {MIDDLING}" if count else DIM)


def _name(text: str) -> Text:
    return cell(text, NAME_CELLS_MAX)
