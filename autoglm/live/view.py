"""What has been seen of a server, and the parts of the live view that are about all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from rich.text import Text

from autoglm.live.columns import BAD, DIM, GAP, GOOD, MIDDLING, cell, curve, number, width
from autoglm.show import STATE_COLOURS, batches_line
from autoglm.status import EngineChoice, EngineStatus, Status
from autoglm.text import in_words
from autoglm.types import TaskState

HISTORY_SAMPLES = 180
NAME_CELLS_MAX = 24
_STATE_STYLES = {
    **dict.fromkeys(("ready", "running", "closed", "open"), GOOD),
    **dict.fromkeys(("loading", "starting", "half_open", "draining", "paused"), MIDDLING),
    **dict.fromkeys(("down", "held", "away"), BAD),
}
_ALWAYS = (TaskState.PENDING, TaskState.RUNNING, TaskState.SUCCEEDED, TaskState.DEAD)


class View(msgspec.Struct, frozen=True):
    """What there is to show. `status` was told at `now_ms` and is old news while `away` says
    why there is none since.
    """

    status: Status
    history: Mapping[str, Sequence[float]]
    """Tokens per second by engine id, a sample a second, oldest first."""
    now_ms: int
    away: str = ""
    back: str = ""
    """That the server is there again, for a while after it was not."""


def server_line(view: View) -> Text:
    server = view.status.server
    line = Text(f"autoglm {cell(server.version, 20)}", style="bold")
    line.append(GAP).append(state("away" if view.away else server.state))
    line.append(f"{GAP}{cell(server.engine, 20)} {cell(server.model, 60)}", style="not bold")
    up = in_words((view.now_ms - server.started_at) / 1000)
    return line.append(f"{GAP}up {up}{GAP}pid {server.pid}", style="not bold dim")


def task_lines(status: Status, cells: int) -> list[Text]:
    """How many tasks there are of each state: those that matter or are there."""
    counts = {each: status.tasks.get(each.value, 0) for each in TaskState}
    lines = [Text()]
    for each, count in counts.items():
        if not count and each not in _ALWAYS:
            continue
        style = STATE_COLOURS.get(each, "") if count else DIM
        word = Text(f"{each.value} ", style=DIM).append(f"{count:,}", style=f"{style} not dim")
        if width(lines[-1]) and width(lines[-1]) + len(GAP) + width(word) > cells:
            lines.append(Text())
        lines[-1].append(GAP if width(lines[-1]) else "").append_text(word)
    return lines


def tokens_curve(view: View, cells: int, rows: int) -> list[Text]:
    """Tokens per second of all engines together, over the last minutes."""
    samples = [sum(each) for each in zip(*_same_length(view.history.values()), strict=True)]
    if not samples or rows < 1:
        return []
    now, most = number(samples[-1]), number(max(samples[-cells:]))
    title = Text("TOKENS/S", style="bold cyan").append(f"{GAP}{now} now", style="not bold default")
    title.append(f"{GAP}{most} at most", style=f"not bold {DIM}")
    return [title, *(Text(line, style="cyan") for line in curve(samples, cells, rows))]


def choices(seen: Iterable[EngineStatus]) -> list[Text]:
    """What was picked for the machine; engines that picked the same share a line."""
    chosen: dict[EngineChoice, None] = dict.fromkeys(
        choice for engine in seen for choice in engine.choices
    )
    return [Text(f"{cell(c.name)} = {cell(c.value)}: {cell(c.why)}", style="dim") for c in chosen]


def batches(status: Status) -> Text:
    return cell(batches_line(status), style="dim")


def state(word: str) -> Text:
    return cell(word, NAME_CELLS_MAX, _STATE_STYLES.get(word, ""))


def _same_length(histories: Iterable[Sequence[float]]) -> list[list[float]]:
    """Padded in front with nothing: an engine that is younger gave nothing before."""
    known = [list(each) for each in histories]
    most = max(map(len, known), default=0)
    return [[0.0] * (most - len(each)) + each for each in known]
