"""What a person has done with the live view so far, and what a key makes of it. Pure.

    overview ── d ─▶ letters ── enter ─▶ text      esc or q: one back      q on the overview: leave
             ── t ─▶ tasks   ── enter ─▶ text
             ── ? ─▶ help

What is selected is known by name and not by its place, so it stays selected while rows move. What
ends work is asked about once; everything else that a key does can be taken back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal, NamedTuple

import msgspec

from autoglm.text import one_line

PAGE_ROWS = 10
"""How far PgUp and PgDn go."""
QUEUE, TASK = "queue ", "task "
"""What a selected name begins with."""

Kind = Literal["toggle queue", "toggle", "cancel", "retry", "letters", "tasks", "letter", "task"]


class Page(StrEnum):
    OVERVIEW = "overview"
    LETTERS = "letters"
    TASKS = "tasks"
    TEXT = "text"
    HELP = "help"


class Deed(NamedTuple):
    """What is to be asked of the server."""

    kind: Kind
    target: str = ""
    """A queue's name or a task's id."""


class Row(msgspec.Struct, frozen=True):
    """One row of a listing: the task's id, and what its columns hold."""

    id: str
    cells: tuple[str, ...]


class Listing(msgspec.Struct, frozen=True):
    """Dead letters, or tasks, as they were when they were asked for."""

    title: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


class State(msgspec.Struct, frozen=True):
    page: Page = Page.OVERVIEW
    selected: str = ""
    """`queue NAME` or `task ID`."""
    listing: Listing = Listing()
    text: tuple[str, ...] = ()
    """The lines of page `text`, which is about `selected`."""
    scroll: int = 0
    below: tuple[tuple[Page, str], ...] = ()
    """Pages to go back to, the next one last, with what was selected there."""
    asking: Deed | None = None
    """What a yes is waited for."""
    note: str = ""
    """What became of the last deed."""
    bad: bool = False
    """It is the note of a failure."""


class Step(NamedTuple):
    """What a key leads to."""

    state: State
    deed: Deed | None = None
    leave: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What a deed came to: words, or a page to show."""

    note: str = ""
    bad: bool = False
    listing: Listing | None = None
    text: tuple[str, ...] | None = None


_MOVES = {
    "up": -1,
    "k": -1,
    "page up": -PAGE_ROWS,
    "home": -1_000_000,
    "down": 1,
    "j": 1,
    "page down": PAGE_ROWS,
    "end": 1_000_000,
}
_BAR: Mapping[Page, Sequence[tuple[str, str]]] = {
    Page.OVERVIEW: (
        *(("q", "quit"), ("?", "help"), ("↑↓", "select"), ("p", "pause/resume"), ("c", "cancel")),
        *(("d", "dead letters"), ("t", "tasks"), ("enter", "look")),
    ),
    Page.LETTERS: (("esc", "back"), ("↑↓", "select"), ("enter", "look"), ("r", "retry")),
    Page.TASKS: (
        *(("esc", "back"), ("↑↓", "select"), ("enter", "look")),
        *(("p", "pause/resume"), ("c", "cancel")),
    ),
    Page.TEXT: (("esc", "back"), ("↑↓", "scroll")),
    Page.HELP: (("esc", "back"),),
}


def key_bar(state: State) -> Sequence[tuple[str, str]]:
    """The keys that do something now, with what."""
    if state.asking is not None:
        return (("y", "yes"), ("n", "no"))
    bar = _BAR[state.page]
    if state.page is Page.TEXT:
        letters = Page.LETTERS in {page for page, _ in state.below}
        more = (("r", "retry"),) if letters else (("p", "pause/resume"), ("c", "cancel"))
        return (*bar, *more)
    return bar


def question(deed: Deed) -> str:
    """What is asked before it is done."""
    return f"{deed.kind} task {one_line(deed.target)}?"


def press(state: State, key: str, rows: Sequence[str]) -> Step:
    """What `key` leads to; `rows`: what can be selected on the page, in order."""
    asked = state.asking
    state = msgspec.structs.replace(state, note="", bad=False, asking=None)
    if asked is not None:
        return Step(state, asked) if key in ("y", "Y") else Step(_noted(state, "not done"))
    if key == "q" and state.page is Page.OVERVIEW:
        return Step(state, leave=True)
    if key in ("q", "esc", "left", "backspace"):
        return Step(_back(state))
    if key == "?" and state.page is not Page.HELP:
        return Step(opened(state, Page.HELP))
    if key in _MOVES:
        return Step(_moved(state, _MOVES[key], rows))
    named = dict(key_bar(state))
    if key == "d" and "d" in named:
        return Step(state, Deed("letters"))
    if key == "t" and "t" in named:
        return Step(state, Deed("tasks"))
    if key in named and key in ("p", "c", "r", "enter"):
        return _on_selected(state, key, rows)
    return Step(state)


def after(state: State, deed: Deed, outcome: Outcome) -> State:
    """When the server has answered."""
    if outcome.listing is not None:
        page = Page.LETTERS if deed.kind == "letters" else Page.TASKS
        if state.page is not page:
            state = opened(state, page)
        keys = row_keys(outcome.listing)
        selected = state.selected if state.selected in keys else next(iter(keys), "")
        return msgspec.structs.replace(state, listing=outcome.listing, selected=selected)
    if outcome.text is not None:
        return msgspec.structs.replace(opened(state, Page.TEXT), text=outcome.text, scroll=0)
    return _noted(state, outcome.note, bad=outcome.bad)


def opened(state: State, page: Page) -> State:
    """`page` on top of the present one. What is selected stays so for a text about it."""
    below = (*state.below, (state.page, state.selected))
    selected = state.selected if page is Page.TEXT else ""
    return msgspec.structs.replace(state, page=page, below=below, selected=selected)


def row_keys(listing: Listing) -> Sequence[str]:
    """What can be selected of it, in order."""
    return [f"{TASK}{row.id}" for row in listing.rows]


def _on_selected(state: State, key: str, rows: Sequence[str]) -> Step:
    if state.page is not Page.TEXT and state.selected not in rows:
        return Step(_noted(state, "select a row first, with ↑ and ↓"))
    is_task, name = state.selected.startswith(TASK), state.selected.partition(" ")[2]
    match key:
        case "p":
            return Step(state, Deed("toggle" if is_task else "toggle queue", name))
        case "c" if is_task:
            return Step(msgspec.structs.replace(state, asking=Deed("cancel", name)))
        case "r":
            return Step(state, Deed("retry", name))
        case "enter" if is_task:
            return Step(state, Deed("letter" if state.page is Page.LETTERS else "task", name))
        case _:
            return Step(_noted(state, "that is for tasks; a queue can be paused and resumed"))


def _moved(state: State, by: int, rows: Sequence[str]) -> State:
    if state.page is Page.TEXT:
        last = max(0, len(state.text) - 1)
        return msgspec.structs.replace(state, scroll=min(max(state.scroll + by, 0), last))
    if not rows:
        return state
    if state.selected in rows:
        place = min(max(rows.index(state.selected) + by, 0), len(rows) - 1)
    else:
        place = 0 if by > 0 else len(rows) - 1
    return msgspec.structs.replace(state, selected=rows[place])


def _back(state: State) -> State:
    if not state.below:
        return msgspec.structs.replace(state, selected="")
    (page, selected), below = state.below[-1], state.below[:-1]
    return msgspec.structs.replace(state, page=page, selected=selected, below=below, scroll=0)


def _noted(state: State, note: str, *, bad: bool = False) -> State:
    return msgspec.structs.replace(state, note=note, bad=bad)
