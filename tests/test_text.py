"""Text for people: nothing in it acts on a terminal, and durations are read and written."""

from __future__ import annotations

import time
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import UsageError
from autoglm.text import ago, clock_time, duration_s, in_words, one_line, printable

PIECES = (
    *("\x1b", "\x1b[", "\x1b]0;", "\x1bP", "\x9b", "\x9d", "\x07", "\x1b\\", "\x9c", "\r", "\n"),
    *("\u202e", "\u2066", "\u2028", "\ud800", "\x00", "\x7f", "31m", "ab", "\t", "é", "漢"),
)
texts = st.text() | st.lists(st.sampled_from(PIECES)).map("".join)
DANGEROUS = {"Cc", "Cs", "Zl", "Zp"}
BIDI = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


def is_safe(character: str) -> bool:
    category = unicodedata.category(character)
    return category not in DANGEROUS and unicodedata.bidirectional(character) not in BIDI


@given(texts)
def test_no_control_character_survives_but_line_feeds_and_tabs(text: str) -> None:
    assert all(character in "\n\t" or is_safe(character) for character in printable(text))


@given(texts, st.none() | st.integers(1, 40))
def test_one_line_is_one_line_and_no_wider_than_asked(text: str, width: int | None) -> None:
    line = one_line(text, width)
    assert all(map(is_safe, line))
    assert width is None or len(line) <= width


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(texts)
def test_what_was_made_safe_is_safe_for_good(text: str) -> None:
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPquery\x1b\\text", "text"),
        ("\x9b2Jtext", "text"),
        ("\x1b]0;an unfinished title", "0;an unfinished title"),
        ("safe\rforged", "safeforged"),
        ("a\u202eb", "ab"),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_a_sequence_goes_with_what_it_carries(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_line_that_is_cut_says_so() -> None:
    assert one_line("a  b\n c", 4) == "a b…"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("90", 90), ("30s", 30), ("10m", 600), ("2h", 7200), ("1d", 86_400), ("1w", 604_800)),
        *(("1.5h", 5400), (" 2 H ", 7200), ("0", 0), (2.5, 2.5), (0, 0)),
    ],
)
def test_durations_in_words_and_numbers(text: str | float, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "1y", "1h30m", "1e3", "٣s", "nan", -1, float("nan"), "9999w", 1e300]
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(UsageError):
        duration_s(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        *((0, "0.0s"), (-1, "0.0s"), (0.44, "0.4s"), (9.94, "9.9s"), (9.96, "10s"), (59.4, "59s")),
        *((59.6, "1m00s"), (185, "3m05s"), (3599.6, "1h00m"), (7800, "2h10m")),
        *((86_399.9, "1d00h"), (4 * 86_400 + 3 * 3600, "4d03h")),
    ],
)
def test_a_duration_as_a_person_reads_it(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        *((-5, "just now"), (999, "just now"), (1000, "1 s ago"), (59_999, "59 s ago")),
        *((120_000, "2 min ago"), (3_600_000, "1 h ago"), (49 * 3_600_000, "2 d ago")),
    ],
)
def test_how_long_ago_it_was(ms: int, words: str) -> None:
    assert ago(ms) == words


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_a_moment_is_shown_in_local_time_summer_or_winter() -> None:
    assert clock_time(1_700_000_000_999) == "2023-11-14 17:13:20"
    assert clock_time(1_690_000_000_000) == "2023-07-22 00:26:40"
