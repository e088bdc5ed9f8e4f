"""What `run` shows while it runs, on a terminal and elsewhere."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from autoglm.job import Progress
from autoglm.live.job import ANSWERS_SHOWN, JobPanel
from autoglm.progress import Pace, shown_progress


def progress(done: int, tokens: int, failed: int = 0, cached: int = 0) -> Progress:
    asked = {"prompt_tokens": 1000 if tokens else 0, "cached_tokens": cached}
    made = Progress("job", 1000, answered=done, failed=failed, completion_tokens=tokens)
    return msgspec.structs.replace(made, **asked)


def panel_at_work(cached: int = 0) -> JobPanel:
    panel = JobPanel("in.jsonl → out.jsonl", 0)
    for second in range(41):
        panel.report(progress(10 * second, 500 * second, 3, cached))
        panel.picture(80, second)
    return panel


def test_the_panel_tells_how_far_how_fast_and_how_long_still() -> None:
    panel = panel_at_work(cached=420)
    panel.on_answers([(399, "The capital\nof France is Paris.\x1b[2J"), (400, "漢字 " * 99)])
    lines = panel.picture(80, 40).plain.split("\n")
    assert lines[0].startswith("╭─ in.jsonl → out.jsonl ─")
    assert "403 of 1,000  3 failed" in lines[1]
    assert "500 tokens/s ████" in lines[2]
    assert "prefix hits 42%  40s, about 1m00s left" in lines[2]
    assert "399 The capital of France is Paris." in lines[3]
    assert "400 漢字 漢字" in lines[4]
    assert {cell_len(line) for line in lines} == {79}


def test_before_the_first_answer_nothing_is_guessed() -> None:
    panel = JobPanel("in → out", 0)
    assert "waiting for the server" in panel.picture(80, 1).plain
    panel.report(progress(0, 0))
    text = panel.picture(80, 2).plain
    assert "0 of 1,000" in text
    assert "waiting for the first answer" in text
    assert "left" not in text


def test_what_a_resumed_job_had_before_does_not_make_it_faster() -> None:
    pace = Pace(0)
    pace.note(progress(900, 0), 0)
    pace.note(progress(910, 100), 10)
    assert pace.tokens_per_s == 10
    assert pace.left_s(progress(910, 100)) == 90


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    pace = Pace(0)
    for second in range(200):
        done = second if second < 100 else 100 + 10 * (second - 100)
        pace.note(progress(done, 0), second)
    assert pace.left_s(progress(1000, 0)) == 0
    assert pace.left_s(progress(0, 0)) == pytest.approx(100)


def test_the_last_answers_are_shown_and_no_more() -> None:
    panel = panel_at_work()
    for line in range(1, 40):
        panel.on_answers([(line, f"answer {line}")])
    text = panel.picture(80, 41).plain
    assert [f"answer {line}" in text for line in (35, 36, 39)] == [False, True, True]
    assert text.count("answer ") == ANSWERS_SHOWN


@given(st.text(max_size=60), st.integers(1, 220))
def test_the_panel_keeps_its_frame_whatever_the_model_says(text: str, cells: int) -> None:
    panel = panel_at_work()
    panel.on_answers([(1, text), (2, "漢字" * 40)])
    lines = panel.picture(cells, 41).plain.split("\n")
    assert len({cell_len(line) for line in lines}) == 1
    assert "\x1b" not in panel.picture(cells, 41).plain
    assert panel.picture(60, 41).plain.count("\n") == 5


def test_a_terminal_that_knows_ascii_alone_gets_nothing_else() -> None:
    panel = JobPanel("in → out", 0, ascii_only=True)
    panel.report(progress(10, 10))
    assert panel.picture(80, 1).plain.isascii()


def test_in_a_pipe_it_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = iter([0.0, 0.5, 5.0, 10.0, 12.0, 20.0])
    with shown_progress(Path("in"), Path("out"), lambda: next(now)) as (report, on_answers):
        on_answers([(1, "not shown")])
        for done in (0, 40, 100, 110, 200):
            report(progress(done, 10 * done))
    assert capsys.readouterr().err.splitlines() == [
        "autoglm: 0 of 1000 done so far, waiting for answers",
        "autoglm: 100 of 1000 done, 0 failed, 100.0 tokens/s, about 1m26s left",
        "autoglm: 200 of 1000 done, 0 failed, 100.0 tokens/s, about 1m18s left",
    ]
