"""Expected lengths are learned, bounded, and move nobody further than the span."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.lengths import PRIOR, SPAN_MS_MAX, Lengths, boost
from actors.policy.rank import HOUR_MS

TOKENS, AGE, CHARS = st.integers(1, 100_000), st.integers(0, 2**40), st.integers(0, 2**24)
ENDED = st.tuples(st.sampled_from("abc"), st.sampled_from([None, "x", "y"]), CHARS, TOKENS, AGE)


def learned(*ended: tuple[str, str | None, int, int, int]) -> Lengths:
    lengths = Lengths()
    for each in ended:
        lengths.ended(*each)
    return lengths


def test_nothing_is_moved_before_the_first_answer() -> None:
    assert Lengths().boost_ms("a", "x", 100) == 0
    assert Lengths().expected("a", "x", 100) == 0


@given(st.lists(ENDED, min_size=1))
def test_an_expectation_lies_between_the_shortest_and_the_longest_answer(
    ended: list[tuple[str, str | None, int, int, int]],
) -> None:
    expected = learned(*ended).expected("a", "x", 100)
    tokens = [each[3] for each in ended]
    assert min(tokens) - 1e-6 <= expected <= max(tokens) + 1e-6


@given(st.lists(ENDED), TOKENS)
def test_a_limit_caps_the_expectation(
    ended: list[tuple[str, str | None, int, int, int]], limit: int
) -> None:
    assert learned(*ended).expected("a", "x", 100, limit) <= limit


@given(st.lists(ENDED), CHARS)
def test_no_boost_is_worth_a_level_of_priority(
    ended: list[tuple[str, str | None, int, int, int]], chars: int
) -> None:
    assert 0 <= learned(*ended).boost_ms("a", "x", chars) <= SPAN_MS_MAX < HOUR_MS


@given(st.lists(ENDED), CHARS)
def test_no_boost_is_longer_than_the_longest_age_seen(
    ended: list[tuple[str, str | None, int, int, int]], chars: int
) -> None:
    oldest = max((each[4] for each in ended), default=0)
    assert learned(*ended).boost_ms("a", "x", chars) <= oldest


@given(st.lists(st.floats(0, 1000), min_size=2))
def test_what_is_expected_to_be_shorter_is_never_moved_less(ratios: list[float]) -> None:
    for shorter, longer in pairwise(sorted(ratios)):
        assert boost(shorter) >= boost(longer)


@given(st.integers(1, 50), TOKENS, AGE)
def test_where_all_answers_are_alike_the_order_is_that_of_arrival(
    count: int, tokens: int, age: int
) -> None:
    """All boosts are the same as long as the span is, whatever the kind is called."""
    lengths = learned(*[("a", "x", 100, tokens, age)] * count)
    assert lengths.boost_ms("a", "x", 100) == lengths.boost_ms("b", "new", 5000)


def test_one_answer_is_drawn_to_the_mean_and_many_are_believed() -> None:
    lengths = learned(*[("a", "long", 100, 1000, 1)] * 100, ("a", "short", 100, 10, 1))
    mean = (100 * 1000 + 10) / 101
    pair = (10 + PRIOR * mean) / (1 + PRIOR)
    assert lengths.expected("a", "short", 10**6) == pytest.approx(pair)
    for _ in range(500):
        lengths.ended("a", "short", 100, 10, 1)
    assert lengths.expected("a", "short", 100) < 12


def test_prompts_of_one_kind_are_told_apart_by_their_size() -> None:
    lengths = learned(*[("a", "x", 100, 10, 1), ("a", "x", 10_000, 500, 1)] * 50)
    assert lengths.expected("a", "x", 120) < 50
    assert lengths.expected("a", "x", 9000) > 400


def test_an_answer_without_tokens_counts_as_one() -> None:
    assert learned(("a", "x", 1, 0, 60_000)).boost_ms("a", "x", 1) > 0


def test_no_more_pairs_are_kept_than_allowed_and_the_one_used_last_stays() -> None:
    lengths = Lengths(pairs_max=2)
    for kind in ("x", "y", "x", "z"):
        lengths.ended("a", kind, 1, 10 if kind == "x" else 100, 1)
    assert lengths.statistics().pairs == 2
    assert lengths.expected("a", "x", 1) < lengths.expected("a", "y", 1)


def test_the_span_falls_when_nobody_waits_as_long_any_more() -> None:
    lengths = learned(("a", "x", 1, 10, 60_000), *[("a", "x", 1, 10, 1000)] * 8192)
    assert lengths.statistics().span_ms == pytest.approx(60_000 / 2.718281828**2, rel=0.01)
