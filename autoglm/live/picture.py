"""The live view as a picture: a pure function of what was seen, what is selected, and the size.

    autoglm 0.1.0  running  simulated smollm2  up 3m05s  pid 4711
    pending 1,234  running 64  succeeded 12,345  dead 0

     ENGINE    STATE  BREAKER  SLOTS           WAIT  KV  HITS  RESTARTS  TOKENS/S
     engine-1  ready  closed   ████░░░░ 64/128   12  9%   42%         0     1,235  ▁▂▅▇█▇▇
    …
    q quit  ? help  ↑↓ select  p pause/resume …

No line is wider and no picture higher than the terminal. Where there is no room, columns go before
rows, rows of what matters least before others, and what is left out is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from rich.text import Text

from autoglm.live import panels
from autoglm.live.columns import (
    BAD,
    DIM,
    GAP,
    GOOD,
    HEAD,
    MIDDLING,
    Column,
    cell,
    fitted,
    in_ascii,
    steady,
    table,
    width,
)
from autoglm.live.panels import Section
from autoglm.live.state import QUEUE, TASK, Page, State, key_bar, question, row_keys
from autoglm.live.view import View, batches, choices, server_line, task_lines, tokens_curve

TWO_COLUMNS_CELLS = 150
_CURVE_ROWS = 6
_MARK, _GUTTER = "▸", " │ "
_HELP = (
    ("↑ ↓ j k PgUp PgDn", "select a queue or a task; its name stays selected while rows move"),
    ("p", "pause what is selected, or resume it: a queue, or a task that waits"),
    ("c", "cancel the task that is selected; asks once"),
    ("enter", "look at the task that is selected: all there is to know, its answer at the end"),
    ("d", "dead letters: tasks that failed for good; r tries one again"),
    ("t", "tasks that wait or run, the newest first"),
    ("esc q", "one page back; q leaves the first page, and so the view"),
    ("ctrl-z", "stop for now; fg goes on"),
    ("", ""),
    ("DUE USED", "the part of the engines by weight, among those that wait, and the part of the"),
    ("", "tokens lately; yellow: less than half of what is due"),
    ("KV HITS", "the KV cache in use; prompt tokens found in it, thanks to a shared prefix"),
    ("BREAKER", "closed: all is well; open: held after failures; half_open: one try is made"),
)

Lines = list[Text]


def picture(view: View, state: State, cells: int, rows: int, *, ascii_only: bool = False) -> Text:
    """The view as `rows` lines of at most `cells`."""
    head, foot = _head(view, cells), _foot(state, cells)
    room = max(0, rows - len(head) - len(foot))
    body = _body(view, state, cells, room)[:room]
    lines = [*head, *body, *[Text()] * (room - len(body)), *foot]
    if len(lines) > rows:
        lines = [*lines[: rows - 1], foot[-1]]
    return _joined(lines, cells, ascii_only=ascii_only)


def still(view: View, cells: int, *, ascii_only: bool = False) -> Text:
    """All there is to say, in as many lines of at most `cells` as it takes."""
    status = view.status
    lines = [server_line(view), cell(f"data {status.server.data_dir}", style="dim")]
    if status.server.trouble:
        lines.append(cell(f"trouble: {status.server.trouble}", style=f"bold {BAD}"))
    lines += task_lines(status, cells)
    for section in _sections(view, cells):
        if section.rows:
            lines += [Text(), section.head, *section.rows]
    lines += [Text(), batches(status), *choices(status.engines)]
    return _joined(lines, cells, ascii_only=ascii_only)


def selectable(view: View, state: State) -> Sequence[str]:
    """What can be selected on the page, in order."""
    if state.page is Page.OVERVIEW:
        status = view.status
        tasks = (*status.slowest, *status.failures)
        keys = (
            *(f"{QUEUE}{queue.name}" for queue in status.queues),
            *(f"{TASK}{task.id}" for task in tasks),
        )
        return list(dict.fromkeys(keys))
    return row_keys(state.listing) if state.page in (Page.LETTERS, Page.TASKS) else ()


# ── the parts of a page ──────────────────────────────────────────────────────────────────────────


def _head(view: View, cells: int) -> Lines:
    lines = [server_line(view), *task_lines(view.status, cells)[:2]]
    if view.status.server.trouble:
        lines.append(cell(f"trouble: {view.status.server.trouble}", cells, f"bold {BAD}"))
    if view.away:
        lines.append(cell(view.away, cells, f"bold {BAD}"))
    elif view.back:
        lines.append(cell(view.back, cells, f"bold {GOOD}"))
    return lines


def _foot(state: State, cells: int) -> Lines:
    lines: Lines = []
    if state.asking is not None:
        lines.append(cell(question(state.asking), cells, f"bold {MIDDLING}"))
    elif state.note:
        lines.append(cell(state.note, cells, f"bold {BAD if state.bad else GOOD}"))
    bar = Text()
    for key, what in key_bar(state):
        if width(bar) + len(key) + len(what) + 3 > cells:
            break
        bar.append(key, style="bold reverse").append(f" {what}", style=DIM).append(GAP)
    return [*lines, bar]


def _body(view: View, state: State, cells: int, room: int) -> Lines:
    match state.page:
        case Page.OVERVIEW:
            return _overview(view, state.selected, cells, room)
        case Page.LETTERS | Page.TASKS:
            return _listing(state, cells, room)
        case Page.TEXT:
            return _text(state, cells, room)
        case Page.HELP:
            words = [
                Text(f" {keys:<19}", style="bold cyan").append(says, style="not bold default")
                for keys, says in _HELP
            ]
            return [Text(), *words]


def _listing(state: State, cells: int, room: int) -> Lines:
    listing = state.listing
    title = Text(" ") + cell(listing.title, style="bold")
    if not listing.rows:
        return [title]
    last = len(listing.columns) - 1
    columns = [
        Column(name, rank=0 if place in (0, last) else last - place, flexible=place == last)
        for place, name in enumerate(listing.columns)
    ]
    rows = ([cell(text, 400) for text in row.cells] for row in listing.rows)
    head, *lines = table(columns, rows, cells - 1)
    section = Section(head, lines, list(row_keys(listing)), 0, 1)
    return [title, *_shown(section, state.selected, cells, max(0, room - 2))]


def _text(state: State, cells: int, room: int) -> Lines:
    wrapped: Lines = []
    for line in state.text[state.scroll :]:
        if len(wrapped) >= room:
            break
        wrapped += _wrapped(line, cells) or [Text()]
    return wrapped


def _wrapped(line: str, cells: int) -> Lines:
    """The line in pieces that fit; an endless one is cut."""
    left, pieces = steady(line), list[Text]()
    while width(left) > cells:
        sums = accumulate(width(Text(letter)) for letter in left.plain)
        at = next(place for place, taken in enumerate(sums) if taken > cells) or 1
        pieces.append(left[:at])
        left = left[at:]
    return [*pieces, left]


def _overview(view: View, selected: str, cells: int, room: int) -> Lines:
    if cells < TWO_COLUMNS_CELLS:
        return _stacked(_sections(view, cells - 1), selected, cells, room)
    right_cells = (cells - len(_GUTTER)) // 2
    left_cells = cells - len(_GUTTER) - right_cells
    names = {"queues", "engines", "tenants", "actors"}
    left = _stacked(_sections(view, left_cells - 1, names), selected, left_cells, room)
    above = tokens_curve(view, right_cells - 1, _CURVE_ROWS)
    above = [*(Text(" ") + line for line in above), Text()] if room > 24 and above else []
    rest = {"slowest", "failures"}
    below = _stacked(
        _sections(view, right_cells - 1, rest), selected, right_cells, room - len(above)
    )
    right = [*above, *below]
    high = max(len(left), len(right))
    left, right = ([*side, *[Text()] * (high - len(side))] for side in (left, right))
    gutter = Text(_GUTTER, style=DIM)
    return [
        fitted(a, left_cells) + gutter + fitted(b, right_cells)
        for a, b in zip(left, right, strict=True)
    ]


def _sections(view: View, cells: int, names: set[str] | None = None) -> list[Section]:
    status = view.status
    made = {
        "engines": lambda: panels.engines(view, cells),
        "queues": lambda: panels.queues(status, cells),
        "tenants": lambda: panels.tenants(status, cells),
        "slowest": lambda: panels.slowest(status, cells),
        "failures": lambda: panels.failures(view, cells),
        "actors": lambda: panels.actors(status, cells),
    }
    return [make() for name, make in made.items() if names is None or name in names]


def _stacked(sections: list[Section], selected: str, cells: int, room: int) -> Lines:
    """The sections below each other, in `room` lines: the least important are cut first."""
    sections = [section for section in sections if section.rows]
    counts = {id(section): len(section.rows) for section in sections}

    def over() -> int:
        return sum(1 + counts[id(section)] for section in sections) - room

    while over() > 0:
        long = [each for each in sections if counts[id(each)] > each.least]
        if long:  # the longest, so that nobody's rows push out all of another's
            cut = max(long, key=lambda each: (counts[id(each)], each.rank))
            counts[id(cut)] -= 1
        else:
            sections.remove(max(sections, key=lambda each: each.rank))
    airy = over() + len(sections) <= 1
    lines: Lines = []
    for section in sections:
        lines += [Text()] if airy and lines else []
        lines += _shown(section, selected, cells, counts[id(section)])
    return lines


def _shown(section: Section, selected: str, cells: int, most: int) -> Lines:
    """The head, which counts what is not shown, and up to `most` rows; what is selected is among
    them, and marked.
    """
    rows, keys = section.rows, section.keys
    place = keys.index(selected) if selected and selected in keys else -1
    shown = min(most, len(rows))
    first = min(max(0, place - shown + 1), len(rows) - shown)
    more = f" +{len(rows) - shown}" if shown < len(rows) else ""
    head = Text(" ") + fitted(section.head, cells - 1 - len(more)) + Text(more)
    head.stylize(HEAD)
    lines = [head]
    for number in range(first, first + shown):
        if number == place:
            line = Text(_MARK + fitted(rows[number], cells - 1).plain, style="bold reverse")
        else:
            line = Text(" ") + rows[number]
        lines.append(line)
    return lines


def _joined(lines: Lines, cells: int, *, ascii_only: bool) -> Text:
    for line in lines:
        line.truncate(cells, overflow="ellipsis")
    joined = Text("\n", no_wrap=True, overflow="crop").join(lines)
    return in_ascii(joined) if ascii_only else joined
