"""What keys do to the live view, and what a keyboard sends for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm import wire
from autoglm.client import Client
from autoglm.errors import ServerNotRunning, ServerUnavailable
from autoglm.ids import Ids
from autoglm.live.deeds import carry_out
from autoglm.live.state import Deed, Listing, Outcome, Page, Row, State, Step, after, key_bar, press
from autoglm.live.terminal import Keys
from autoglm.live.watch import Watch
from autoglm.status import Status
from tests.liveviews import NOW_MS, status

ROWS = ("queue core", "queue normal", "task a")
LETTERS = Listing("1 dead letter", ("LETTER",), (Row("a", ("a",)), Row("b", ("b",))))


def pressed(state: State, *keys: str) -> Step:
    step = Step(state)
    for key in keys:
        step = press(step.state, key, ROWS)
    return step


def test_arrows_select_and_stop_at_the_ends() -> None:
    names = [pressed(State(), *["down"] * count).state.selected for count in range(1, 5)]
    assert names == ["queue core", "queue normal", "task a", "task a"]
    assert pressed(State(), "up").state.selected == "task a"
    assert pressed(State(), "down", "up", "up").state.selected == "queue core"
    assert pressed(State(), "down", "end").state.selected == "task a"


def test_what_is_selected_stays_so_when_it_is_no_longer_shown_and_then_nothing_is_done() -> None:
    step = press(State(selected="task gone"), "c", ROWS)
    assert (step.deed, step.state.selected) == (None, "task gone")
    assert "select" in step.state.note


def test_p_pauses_or_resumes_a_queue_or_a_task() -> None:
    assert pressed(State(), "down", "p").deed == Deed("toggle queue", "core")
    assert pressed(State(), "up", "p").deed == Deed("toggle", "a")


def test_c_asks_once_and_only_yes_is_yes() -> None:
    asked = pressed(State(), "up", "c")
    assert (asked.deed, asked.state.asking) == (None, Deed("cancel", "a"))
    assert key_bar(asked.state) == (("y", "yes"), ("n", "no"))
    assert press(asked.state, "y", ROWS).deed == Deed("cancel", "a")
    for key in ("n", "esc", "enter", "q", "c"):
        step = press(asked.state, key, ROWS)
        assert (step.deed, step.leave, step.state.note) == (None, False, "not done")


def test_a_queue_is_not_cancelled() -> None:
    step = pressed(State(), "down", "c")
    assert (step.deed, step.state.asking) == (None, None)


def test_q_leaves_from_the_overview_and_goes_back_from_elsewhere() -> None:
    assert pressed(State(), "q").leave
    help_page = pressed(State(), "?").state
    assert help_page.page is Page.HELP
    assert not press(help_page, "q", ROWS).leave
    assert press(help_page, "esc", ROWS).state.page is Page.OVERVIEW


def test_a_dead_letter_is_listed_looked_at_and_retried_and_one_comes_back() -> None:
    step = pressed(State(selected="queue core"), "d")
    assert step.deed == Deed("letters")
    listed = after(step.state, Deed("letters"), Outcome(listing=LETTERS))
    assert (listed.page, listed.selected) == (Page.LETTERS, "task a")
    rows = ("task a", "task b")
    step = press(press(listed, "down", rows).state, "enter", rows)
    assert step.deed == Deed("letter", "b")
    shown = after(step.state, Deed("letter", "b"), Outcome(text=("line",) * 30))
    assert (shown.page, shown.selected) == (Page.TEXT, "task b")
    assert press(shown, "r", ()).deed == Deed("retry", "b")
    assert press(press(shown, "down", ()).state, "page down", ()).state.scroll == 11
    back = press(shown, "esc", ()).state
    assert (back.page, back.selected) == (Page.LETTERS, "task b")
    home = press(back, "esc", rows).state
    assert (home.page, home.selected) == (Page.OVERVIEW, "queue core")


def test_a_list_asked_for_again_is_no_new_page() -> None:
    listed = after(State(), Deed("letters"), Outcome(listing=LETTERS))
    again = after(listed, Deed("letters"), Outcome(listing=LETTERS))
    assert again.below == listed.below


def test_the_note_of_a_deed_goes_with_the_next_key() -> None:
    noted = after(State(), Deed("retry", "a"), Outcome("a: pending"))
    assert noted.note == "a: pending"
    assert press(noted, "down", ROWS).state.note == ""


@pytest.mark.parametrize("page", list(Page))
def test_keys_that_mean_nothing_do_nothing(page: Page) -> None:
    state = State(page, "task a")
    for key in ("x", "Z", "right", "y", "1"):
        assert press(state, key, ROWS) == Step(state)


# ── what a keyboard sends ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"q", ["q"]),
        (b"\x1b[A\x1b[B", ["up", "down"]),
        (b"\x1bOA\x1b[5~\x1b[6~", ["up", "page up", "page down"]),
        (b"\x1b[H\x1b[4~", ["home", "end"]),
        (b"\r\n", ["enter", "enter"]),
        (b"\x7f", ["backspace"]),
        (b"\x1b[1;5C\x1b[200~q", ["q"]),
        ("ü漢".encode(), []),
        (b"\x00\x01\t", []),
    ],
)
def test_keys_are_known_by_what_terminals_send_for_them(sent: bytes, keys: list[str]) -> None:
    assert Keys().feed(sent) == keys


def test_a_sequence_that_the_network_cut_is_put_together() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.begun
    assert keys.feed(b"[") == []
    assert keys.feed(b"Aq") == ["up", "q"]
    assert not keys.begun


def test_an_escape_that_nothing_follows_is_the_escape_key() -> None:
    keys = Keys()
    keys.feed(b"\x1b")
    assert (keys.rest(), keys.rest()) == (["esc"], [])
    keys.feed(b"\x1b[1")
    assert keys.rest() == []


# ── watching ─────────────────────────────────────────────────────────────────────────────────────


class Scripted(Client):
    """A client whose server answers as it is told to."""

    def __init__(self, *answers: Status | Exception) -> None:
        super().__init__(Path("/nowhere.sock"))
        self._answers = iter(answers)

    async def status(self) -> Status:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def cancel_many(self, tasks: object) -> wire.Cancelled:
        raise ServerNotRunning("no server\x1b[2J here")


async def test_a_server_that_goes_away_and_comes_back_is_watched_through_it() -> None:
    now_ms = iter(range(NOW_MS, NOW_MS + 100_000, 1000))
    now = status()
    client = Scripted(now, ServerUnavailable("closed"), ServerNotRunning("gone"), now)
    watch = Watch(client, Ids(lambda: next(now_ms)))
    first = await watch.first()
    gone = [await watch.look(), await watch.look()]
    back = await watch.look()
    assert [each.away for each in gone] == [
        "away for 1.0s, trying again every second: closed",
        "away for 2.0s, trying again every second: gone",
    ]
    assert [each.status for each in gone] == [first.status] * 2
    assert (back.away, back.back) == ("", "connected again: it is back after 3.0s away")
    assert list(back.history["engine-1"]) == [1234.56, 0.0, 0.0, 1234.56]


async def test_nobody_at_the_start_is_an_error() -> None:
    with pytest.raises(ServerNotRunning):
        await Watch(Scripted(ServerNotRunning("gone"))).first()


async def test_what_the_server_refuses_is_a_note_and_no_end() -> None:
    outcome = await carry_out(Scripted(), Deed("cancel", "a"))
    assert outcome == Outcome("no server here", bad=True)
