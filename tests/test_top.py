"""The live view: what a terminal of a size shows, and what the view does without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from autoglm.client import Client
from autoglm.errors import ServerNotRunning, ServerUnavailable
from autoglm.ids import Ids
from autoglm.picture import View, picture, sparkline
from autoglm.status import (
    ActorStatus,
    BatchStatus,
    EngineChoice,
    EngineStatus,
    ServerStatus,
    Status,
)
from autoglm.top import Watch
from autoglm.types import TaskState

STARTED_MS = 1_700_000_000_000
NOW_MS = STARTED_MS + 185_000


def engine(number: int, **more: object) -> EngineStatus:
    choices = (EngineChoice("dtype", "bfloat16", "the processor has AMX"),)
    status = EngineStatus(
        f"engine-{number}", "ready", "closed", "glm", 60, 4, 64, 1234.56, 4711, choices
    )
    return msgspec.structs.replace(status, **more)


def actor(name: str, **more: object) -> ActorStatus:
    return msgspec.structs.replace(ActorStatus(name, "running", 0, "closed", 1, 99), **more)


def status(engines: int = 1, actors: int = 6) -> Status:
    return Status(
        ServerStatus("0.1.0", 4711, STARTED_MS, "running", "vllm", "smollm2", "/data"),
        {"pending": 1_234_567, "running": 64, "dead": 2},
        tuple(engine(number) for number in range(1, engines + 1)),
        tuple(actor(f"actor-{number}") for number in range(1, actors + 1)),
        BatchStatus(12, 3.4, {"size": 1, "window": 8, "idle": 3}),
    )


def view(now: Status, history: Sequence[float] = (), away: str = "") -> View:
    return View(now, {each.id: history for each in now.engines}, NOW_MS, away)


def shown(seen: View, width: int, height: int | None) -> list[str]:
    """The lines as a terminal of that size gets them."""
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(picture(seen, width, height))
    return capture.get().splitlines()


def test_a_small_terminal_shows_all_of_a_usual_server() -> None:
    lines = shown(view(status(), [1.0, 8.0]), 80, 24)
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert lines[0] == "autoglm 0.1.0  vllm smollm2  running  up 3m05s  pid 4711"
    assert "engine-1  ready  closed     60/64        4    1234.6  ▂█" in text
    assert "batches 12, 3.4 requests each (size 1, window 8, idle 3)" in text
    assert all(state.value in text for state in TaskState)
    assert "1234567" in text
    assert [line.split()[0] for line in lines[-6:]] == [f"actor-{n}" for n in range(1, 7)]


def test_a_large_terminal_shows_what_was_picked_for_the_machine_too() -> None:
    lines = shown(view(status(), [5.0] * 200), 200, 50)
    assert "  dtype = bfloat16: the processor has AMX" in lines
    [line] = [line for line in lines if line.startswith("engine-1")]
    assert line.count("█") == 120


def test_engines_that_picked_the_same_say_it_once() -> None:
    lines = shown(view(status(engines=4)), 200, 50)
    assert len([line for line in lines if "bfloat16" in line]) == 1


def test_what_does_not_fit_is_counted() -> None:
    lines = shown(view(status(engines=20, actors=30)), 80, 24)
    assert len(lines) == 24
    assert [line for line in lines if line.endswith(" more")] != []
    assert "batches" in "\n".join(lines)
    assert any(line.startswith("actor-1 ") for line in lines)


def test_without_a_height_nothing_is_left_out() -> None:
    lines = shown(view(status(engines=20, actors=100)), 80, None)
    assert any(line.startswith("engine-20 ") for line in lines)
    assert any(line.startswith("actor-100 ") for line in lines)


def test_a_server_that_is_away_is_said_so_above_the_last_picture() -> None:
    lines = shown(view(status(), away="away for 3s: no server at /x"), 80, 24)
    assert "  away  " in lines[0]
    assert lines[1] == "away for 3s: no server at /x"
    assert any(line.startswith("engine-1") for line in lines)


def test_why_an_engine_is_down_stands_under_it() -> None:
    down = engine(1, state="down", breaker="open", error="killed by\nsignal 9")
    lines = shown(view(msgspec.structs.replace(status(), engines=(down,))), 80, 24)
    place = next(number for number, line in enumerate(lines) if line.startswith("engine-1"))
    assert lines[place + 1] == "  killed by signal 9"


def test_a_server_without_engines_and_actors_is_shown() -> None:
    assert shown(view(status(engines=0, actors=0)), 80, 24)


nasty = st.text(max_size=40) | st.sampled_from(
    ["\x1b[2J\x1b]0;title\x07", "[red]markup[/red]", "漢字" * 30, "a\nb\r\tc", "\u202eforged"]
)


@given(nasty, st.integers(1, 220), st.integers(1, 60), st.integers(0, 5), st.integers(0, 12))
def test_no_line_is_too_wide_and_no_picture_too_high_whatever_is_in_it(
    text: str, width: int, height: int, engines: int, actors: int
) -> None:
    now = msgspec.structs.replace(
        status(),
        server=ServerStatus(text, 1, STARTED_MS, text, text, text, text),
        engines=tuple(
            engine(n, id=text, state=text, breaker=text, error=text) for n in range(engines)
        ),
        actors=tuple(actor(text, state=text, breaker=text) for _ in range(actors)),
        batches=BatchStatus(1, 1.0, {text: 1}),
    )
    painted = picture(view(now, [1.0], text), width, height).plain
    assert "\x1b" not in painted
    assert "\u202e" not in painted
    lines = painted.split("\n")
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


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


# ── watching ──────────────────────────────────────────────────────────────────────────────────


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


async def test_a_server_that_goes_away_and_comes_back_is_watched_through_it() -> None:
    now_ms = iter(range(NOW_MS, NOW_MS + 100_000, 1000))
    client = Scripted(status(), ServerUnavailable("closed"), ServerNotRunning("gone"), status())
    watch = Watch(client, Ids(lambda: next(now_ms)))
    first = await watch.first()
    gone = [await watch.look(), await watch.look()]
    back = await watch.look()
    assert [each.away for each in gone] == ["away for 1.0s: closed", "away for 2.0s: gone"]
    assert [each.status for each in gone] == [first.status] * 2
    assert (back.away, back.history["engine-1"]) == ("", (1234.56, 1234.56))


async def test_nobody_at_the_start_is_an_error() -> None:
    with pytest.raises(ServerNotRunning):
        await Watch(Scripted(ServerNotRunning("gone"))).first()
