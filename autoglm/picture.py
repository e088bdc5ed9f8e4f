"""The live view as a picture: a pure function of what was seen and the size of the terminal.

    autoglm 0.1.0  simulated smollm2  running  up 3m05s  pid 4711

    ENGINE    STATE  BREAKER  RUNNING  WAITING  TOKENS/S
    engine-0  ready  closed    64/128       12    1234.5  ▁▂▅▇█▇▇

    pending       1234  running         64  succeeded    12345  …
    batches 12, 3.4 requests each (size 1, window 8, idle 3)

    ACTOR      STATE    BREAKER  RESTARTS  MAILBOX  PROCESSED
    frontdoor  running  closed          0        0       1234

No line is wider and no picture higher than the terminal. What does not fit is cut with a word on
how much it was; what an engine picked for the machine is shown when there is room for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.cells import cell_len
from rich.text import Text

from autoglm.show import STATE_COLOURS, batches_line
from autoglm.status import ActorStatus, EngineStatus, Status
from autoglm.text import in_words, one_line
from autoglm.types import TaskState

HISTORY_SAMPLES = 120
NAME_CELLS_MAX = 24
_COUNT_CELLS = 20
_SPARK_CELLS_MIN = 8
_BARS = "▁▂▃▄▅▆▇█"
_GAP = "  "
_GOOD, _MIDDLING, _BAD = "green", "yellow", "red"
_STATE_STYLES = {
    **dict.fromkeys(("ready", "running", "closed"), _GOOD),
    **dict.fromkeys(("loading", "starting", "half_open", "draining"), _MIDDLING),
    **dict.fromkeys(("down", "held", "open"), _BAD),
}
_NUMBERS = {"RUNNING", "WAITING", "TOKENS/S", "RESTARTS", "MAILBOX", "PROCESSED"}
"""Columns that are flush right."""

Row = Sequence[Text]


class View(msgspec.Struct, frozen=True):
    """What there is to show. `status` was told at `now_ms` and is old news while `away` says
    why there is none since.
    """

    status: Status
    history: Mapping[str, Sequence[float]]
    """Tokens per second by engine id, a sample a second, oldest first."""
    now_ms: int
    away: str = ""


def picture(view: View, width: int, height: int | None = None) -> Text:
    """The view as at most `height` lines (None: as many as it takes) of at most `width` cells."""
    status = view.status
    head = [_server_line(view)]
    if view.away:
        head.append(Text(one_line(view.away), style="bold red"))
    counts = [*_task_lines(status, width), Text(batches_line(status))]
    engines, choices = _engine_lines(view, width), _choice_lines(status.engines)
    actors = _table(
        ("ACTOR", "STATE", "BREAKER", "RESTARTS", "MAILBOX", "PROCESSED"),
        map(_actor_row, status.actors),
    )
    if height is not None:
        room = height - len(head) - len(counts) - 3  # a blank line between any two sections
        engines = _cut(engines, max(room - len(actors), room // 2, 2))
        actors = _cut(actors, max(room - len(engines), 0))
        choices = _cut(choices, max(room - len(engines) - len(actors), 0))
    sections = (head, [*engines, *choices], counts, actors)
    lines = [line for section in sections for line in (*section, Text())][:-1]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="crop").join(lines[:height])


def sparkline(samples: Sequence[float], cells: int) -> str:
    """The last `cells` samples as bars, the highest of them being full."""
    shown = samples[-cells:] if cells > 0 else ()
    most = max(shown, default=0.0)
    if most <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[round(max(sample, 0.0) / most * (len(_BARS) - 1))] for sample in shown)


def _server_line(view: View) -> Text:
    server = view.status.server
    up = in_words((view.now_ms - server.started_at) / 1000)
    line = Text(f"autoglm {one_line(server.version)}", style="bold")
    line.append(f"{_GAP}{one_line(server.engine)} {one_line(server.model)}", style="not bold")
    state = "away" if view.away else one_line(server.state)
    line.append(f"{_GAP}{state}", style=_BAD if view.away else _STATE_STYLES.get(state, ""))
    return line.append(f"{_GAP}up {up}{_GAP}pid {server.pid}", style="not bold")


def _engine_lines(view: View, width: int) -> list[Text]:
    header = ("ENGINE", "STATE", "BREAKER", "RUNNING", "WAITING", "TOKENS/S")
    engines = view.status.engines
    lines = _table(header, map(_engine_row, engines))
    cells = min(width - max(map(_cells, lines)) - len(_GAP), HISTORY_SAMPLES)
    shown = lines[:1]
    for engine, line in zip(engines, lines[1:], strict=True):
        history = view.history.get(engine.id, ())
        if cells >= _SPARK_CELLS_MIN and history:
            line.append(_GAP + sparkline(history, cells), style="cyan")
        shown.append(line)
        if engine.error:
            shown.append(Text(f"{_GAP}{one_line(engine.error)}", style=_BAD))
    return shown


def _choice_lines(engines: Iterable[EngineStatus]) -> list[Text]:
    """What was picked for the machine; engines that picked the same share a line."""
    chosen = dict.fromkeys(choice for engine in engines for choice in engine.choices)
    return [
        Text(f"{_GAP}{one_line(c.name)} = {one_line(c.value)}: {one_line(c.why)}", style="dim")
        for c in chosen
    ]


def _task_lines(status: Status, width: int) -> list[Text]:
    """The count of every state, in as many columns as fit."""
    columns = max((width + len(_GAP)) // (_COUNT_CELLS + len(_GAP)), 1)
    counts = [_count(state, status.tasks.get(state.value, 0)) for state in TaskState]
    rows = (counts[start : start + columns] for start in range(0, len(counts), columns))
    return [Text(_GAP).join(row) for row in rows]


def _count(state: TaskState, count: int) -> Text:
    style = STATE_COLOURS.get(state, "") if count else "dim"
    return Text(f"{state.value:10}{count:>{_COUNT_CELLS - 10}}", style=style)


def _engine_row(engine: EngineStatus) -> Row:
    return (
        _name(engine.id),
        _state(engine.state),
        _state(engine.breaker),
        Text(f"{engine.running}/{engine.slots}"),
        Text(str(engine.waiting)),
        Text(f"{engine.tokens_per_s:.1f}"),
    )


def _actor_row(actor: ActorStatus) -> Row:
    return (
        _name(actor.name),
        _state(actor.state),
        _state(actor.breaker),
        Text(str(actor.restarts), style=_MIDDLING if actor.restarts else ""),
        Text(str(actor.mailbox)),
        Text(str(actor.processed)),
    )


def _name(text: str) -> Text:
    name = Text(one_line(text))
    name.truncate(NAME_CELLS_MAX, overflow="ellipsis")
    return name


def _state(text: str) -> Text:
    return Text(one_line(text, NAME_CELLS_MAX), style=_STATE_STYLES.get(text, ""))


def _table(header: Sequence[str], rows: Iterable[Row]) -> list[Text]:
    """Aligned lines, the header first."""
    table = [[Text(name, style="bold") for name in header], *map(list, rows)]
    widths = [max(map(_cells, column)) for column in zip(*table, strict=True)]
    for row in table:
        for name, cell, width in zip(header, row, widths, strict=True):
            cell.align("right" if name in _NUMBERS else "left", width)
    return [Text(_GAP).join(row) for row in table]


def _cells(text: Text) -> int:
    return cell_len(text.plain)


def _cut(lines: list[Text], most: int) -> list[Text]:
    """At most so many lines, the last one saying how many are not shown."""
    if len(lines) <= most:
        return lines
    kept = lines[: max(most - 1, 0)]
    more = Text(f"… {len(lines) - len(kept)} more", style="dim")
    return [*kept, more] if most > 0 else []
