"""What the live view shows, at any size and whatever is in it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from autoglm.degrade import QueueStatus
from autoglm.live.columns import Column, bar, cell, curve, sparkline, table
from autoglm.live.picture import picture, selectable, still
from autoglm.live.state import Listing, Page, Row, State
from autoglm.service import Hold, TenantStatus
from autoglm.status import BatchStatus, ServerStatus, Status
from autoglm.types import TaskState
from tests.liveviews import (
    ACTORS,
    PAUSED,
    SIZES,
    STARTED_MS,
    actor,
    engine,
    failure,
    lines_of,
    path_of,
    snapshot,
    status,
    task,
    view,
)


@pytest.mark.parametrize("size", SIZES)
def test_the_view_looks_as_it_was_last_looked_at(size: tuple[int, int]) -> None:
    assert snapshot(*size) == path_of(*size).read_text()


@pytest.mark.parametrize("size", SIZES)
def test_all_that_a_person_watches_for_is_on_one_screen(size: tuple[int, int]) -> None:
    text = snapshot(*size)
    for head in ("ENGINE", "QUEUE", "TENANT", "SLOWEST TASK", "FAILED TASK", "ACTOR"):
        assert head in text
    assert "████████ 60/64" in text  # slots
    assert "42%" in text  # the KV cache
    assert "1,235  " in text  # tokens/s, and their history
    assert "▇" in text
    assert "killed by SIGKILL" in text
    assert "90%   80%" in text  # due, used
    assert all(name in text for name in ACTORS)
    assert "pending 1,234,567  running 64  succeeded 12,345  dead 2" in text
    assert "q quit  ? help" in text


def test_what_is_selected_is_marked_with_more_than_colour() -> None:
    lines = lines_of(picture(view(), State(selected="queue core"), 80, 24), 80)
    assert [line.split()[0] for line in lines if line.startswith("▸")] == ["▸core"]


def test_what_is_selected_is_shown_however_far_down_it_is() -> None:
    seen = view(msgspec.structs.replace(status(), slowest=tuple(map(task, range(1, 11)))))
    last = seen.status.slowest[-1].id
    lines = lines_of(picture(seen, State(selected=f"task {last}"), 80, 24), 80)
    assert any(line.startswith(f"▸{last}") for line in lines)


def test_what_does_not_fit_is_counted_where_it_is_missing() -> None:
    lines = lines_of(picture(view(), State(), 80, 24), 80)
    [head] = [line for line in lines if line.startswith(" SLOWEST")]
    shown = sum(
        f"01j9z3c6v1a90000000000000{number}" in line for line in lines for number in range(8)
    )
    assert head.endswith(f"+{7 - shown}")
    assert shown >= 2


def test_narrow_columns_go_before_those_that_matter() -> None:
    rows = [tuple(map(Text, ("name", "1", "some words that may be cut short")))]
    columns = (Column("NAME"), Column("COUNT", rank=2), Column("WORDS", rank=1, flexible=True))
    assert table(columns, rows, 80)[0].plain.split() == ["NAME", "COUNT", "WORDS"]
    assert table(columns, rows, 28)[0].plain.split() == ["NAME", "WORDS"]
    assert table(columns, rows, 10)[0].plain.split() == ["NAME"]


def test_a_server_that_is_away_is_said_so_above_the_last_picture() -> None:
    lines = lines_of(picture(view(away="away for 3s: no server at /x"), State(), 80, 24), 80)
    assert "  away  " in lines[0]
    assert lines[2] == "away for 3s: no server at /x"
    assert any(line.startswith(" engine-1") for line in lines)


def test_trouble_with_the_store_is_said_at_the_top() -> None:
    server = msgspec.structs.replace(status().server, trouble="the disk is full")
    seen = view(msgspec.structs.replace(status(), server=server))
    assert "trouble: the disk is full" in lines_of(picture(seen, State(), 80, 24), 80)
    assert "trouble: the disk is full" in lines_of(still(seen, 80), 80)


def test_states_without_a_task_are_left_out_but_for_the_usual_ones() -> None:
    now = msgspec.structs.replace(status(), tasks={"blocked": 7})
    line = lines_of(picture(view(now), State(), 200, 50), 200)[1]
    assert line == "blocked 7  pending 0  running 0  succeeded 0  dead 0"


def test_a_still_picture_leaves_nothing_out() -> None:
    now = msgspec.structs.replace(
        status(),
        engines=tuple(map(engine, range(1, 21))),
        actors=tuple(actor(f"actor-{number}") for number in range(100)),
    )
    text = "\n".join(lines_of(still(view(now), 120), 120))
    for words in ("engine-20 ", "actor-99 ", "data /data", "batches 12", "bfloat16", "umbrella"):
        assert words in text
    assert text.count("bfloat16") == 1  # those that picked the same say it once


def test_dead_letters_are_listed_and_looked_at() -> None:
    rows = (Row("a", ("a", "x\x1b[2J")), Row("b", ("b", "y")))
    state = State(Page.LETTERS, "task b", Listing("2 dead letters", ("LETTER", "ERROR"), rows))
    lines = lines_of(picture(view(), state, 80, 24), 80)
    assert lines[2:6] == [" 2 dead letters", " LETTER  ERROR", " a       x", "▸b       y"]
    assert "r retry" in lines[-1]
    assert selectable(view(), state) == ["task a", "task b"]
    state = State(Page.TEXT, "task b", text=("id        b", "", "w" * 100), scroll=0)
    lines = lines_of(picture(view(), state, 80, 24), 80)
    assert lines[2:6] == ["id        b", "", "w" * 80, "w" * 20]


def test_help_names_every_key_of_the_bar() -> None:
    text = "\n".join(lines_of(picture(view(), State(Page.HELP), 80, 24), 80))
    for words in ("pause what is selected", "asks once", "dead letters", "ctrl-z", "fg"):
        assert words in text


def test_a_terminal_that_knows_ascii_alone_gets_nothing_else() -> None:
    for size in SIZES:
        shown = picture(view(), State(selected="queue core"), *size, ascii_only=True)
        assert shown.plain.isascii()
        assert "#" in shown.plain
    assert still(view(), 80, ascii_only=True).plain.isascii()


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────

nasty = st.text(max_size=40) | st.sampled_from(
    [
        *("\x1b[2J\x1b]0;title\x07", "[red]markup[/red]", "漢字" * 30, "a\nb\r\tc", "\u202eforged"),
        *(
            "👩\u200d👩\u200d👧" * 9,
            "e" + "\u0301" * 300,
            "\x9b31m",
            "️\ufe0f\u200b",
            "\uff57\uff49\uff44\uff45",
        ),
    ]
)


def full_of(text: str, many: int) -> Status:
    held = (Hold("paused", text),)
    each, named = range(many), {"id": text, "tenant": text, "queue": text, "engine": text}
    return Status(
        ServerStatus(text, 1, STARTED_MS, text, text, text, text, text),
        {each.value: 10**many for each in TaskState},
        tuple(engine(n, id=text, state=text, breaker=text, error=text) for n in each),
        tuple(actor(text, state=text, breaker=text) for _ in each),
        BatchStatus(1, 1.0, {text: 1}),
        tuple(
            QueueStatus(text, "cached", paused=True, paused_by=text, service=PAUSED) for _ in each
        ),
        tuple(TenantStatus(text, msgspec.structs.replace(PAUSED, held=held)) for _ in each),
        tuple(task(n, text=text, **named) for n in each),
        tuple(failure(n, code=text, message=text, state=text, **named) for n in each),
    )


PAGES = tuple(Page)


@given(nasty, st.integers(1, 220), st.integers(1, 60), st.integers(0, 12), st.sampled_from(PAGES))
def test_no_line_is_too_wide_and_no_picture_too_high_whatever_is_in_it(
    text: str, cells: int, rows: int, many: int, page: Page
) -> None:
    listing = Listing(text, ("A", "B", "C"), (Row(text, (text, text, text)),) * many)
    state = State(page, f"queue {text}", listing, (text,) * many, note=text)
    painted = picture(view(full_of(text, many), away=text), state, cells, rows).plain
    for unsafe in ("\x1b", "\x9b", "\u202e", "\x07", "\u200d", "\r", "\t"):
        assert unsafe not in painted
    lines = painted.split("\n")
    assert len(lines) <= rows
    assert max(map(cell_len, lines)) <= cells
    assert "\x1b" not in still(view(full_of(text, many)), cells).plain


@given(nasty, st.integers(1, 40))
def test_columns_stay_straight_whatever_is_in_them(text: str, cells: int) -> None:
    rows = [(cell(text, cells), Text("|")), (cell("x", cells), Text("|"))]
    _, first, second = table((Column("NAME"), Column("END")), rows, 200)
    assert cell_len(first.plain.rstrip()) == cell_len(second.plain.rstrip())


# ── bars and curves ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("samples", "cells", "bars"),
    [
        ([], 5, ""),
        ([0, 0], 5, "▁▁"),
        ([0, 5, 10], 5, "▁▅█"),
        ([10, 1, 2, 4], 3, "▃▅█"),
        ([1, 2], 0, ""),
        ([-1, 1], 2, "▁█"),
    ],
)
def test_a_sparkline_shows_the_last_samples_against_the_highest(
    samples: list[float], cells: int, bars: str
) -> None:
    assert sparkline(samples, cells) == bars


def test_a_curve_is_a_sparkline_of_several_lines() -> None:
    assert curve([0, 8, 15, 23], 4, 3) == ["   █", " ▁██", "▁███"]


def test_a_bar_is_never_longer_than_it_may_be() -> None:
    assert [bar(part, 4, "").plain for part in (-1, 0, 0.5, 1, 7)] == [
        *("░░░░", "░░░░", "██░░", "████", "████")
    ]
