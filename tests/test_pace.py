"""The pace of a lane, and what is said to who waits in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.pace import Pace
from autoglm.eta import Eta
from autoglm.types import Usage
from runtime.store.backlog import AHEAD_MAX, Standing
from runtime.store.protocol import Lane, Left

LANE, OTHER = ("normal", "a"), ("normal", "b")
TOOK = Usage(3, 5)


def always(_: Lane) -> bool:
    return True


def never(_: Lane) -> bool:
    return False


def served(pace: Pace, slots: int, takes_s: float, waves: int, lane: Lane = LANE) -> float:
    """`slots` tasks at once, `waves` times over, while more wait. Returns when the last ended."""
    now = 0.0
    for wave in range(waves):
        seqs = range(wave * slots, (wave + 1) * slots)
        pace.began(dict.fromkeys(seqs, lane), now)
        now += takes_s
        pace.stopped([Left(seq, TOOK) for seq in seqs], now, always)
    return now


def test_nothing_is_said_before_anything_was_answered() -> None:
    pace = Pace()
    assert pace.waiting(LANE, 3) == Eta(None, None, ahead=3)
    pace.began({1: LANE}, 0)
    assert pace.waiting(LANE, 3) == Eta(None, None, ahead=3)
    assert pace.running(LANE, 1) == Eta(0.0, None)


@given(st.integers(1, 64), st.floats(0.1, 20), st.integers(1, 40), st.integers(0, 500))
def test_a_steady_lane_goes_on_as_it_went(
    slots: int, takes_s: float, waves: int, ahead: int
) -> None:
    pace = Pace()
    served(pace, slots, takes_s, waves)
    eta = pace.waiting(LANE, ahead)
    assert eta.starts_in_s is not None
    assert eta.finishes_in_s is not None
    # Forgetting within one wave shifts the balance between answers and time a little.
    assert eta.starts_in_s == pytest.approx((ahead + 1) * takes_s / slots, rel=0.2, abs=0.1)
    assert eta.finishes_in_s - eta.starts_in_s == pytest.approx(takes_s, rel=0.2, abs=0.2)


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_who_has_more_ahead_is_never_told_an_earlier_time(one: int, other: int) -> None:
    pace = Pace()
    served(pace, 4, 1.5, 3)
    fewer, more = (pace.waiting(LANE, ahead).starts_in_s for ahead in sorted((one, other)))
    assert fewer is not None
    assert more is not None
    assert fewer <= more


def test_a_lane_is_measured_by_itself() -> None:
    pace = Pace()
    served(pace, 1, 1, 5)
    assert pace.waiting(OTHER, 0) == Eta(None, None)


def test_idle_time_is_not_counted() -> None:
    pace = Pace()
    pace.began({1: LANE}, 0)
    pace.stopped([Left(1, TOOK)], 2, never)
    pace.began({2: LANE}, 20)
    pace.stopped([Left(2, TOOK)], 22, never)
    assert pace.waiting(LANE, 0).starts_in_s == pytest.approx(2, abs=0.2)


def test_a_pause_while_work_waits_is_counted() -> None:
    pace = Pace()
    pace.began({1: LANE}, 0)
    pace.stopped([Left(1, TOOK)], 2, always)
    pace.began({2: LANE}, 20)
    pace.stopped([Left(2, TOOK)], 22, always)
    eta = pace.waiting(LANE, 0)
    assert eta.starts_in_s is not None
    assert eta.starts_in_s > 8


def test_what_was_put_back_is_no_answer() -> None:
    pace = Pace()
    pace.began({1: LANE}, 0)
    pace.stopped([Left(1, Usage())], 2, always)
    assert pace.waiting(LANE, 0) == Eta(None, None)


def test_what_runs_has_the_rest_of_its_time_before_it() -> None:
    pace = Pace()
    served(pace, 1, 4, 3)
    assert pace.running(LANE, 1).finishes_in_s == pytest.approx(3, abs=0.2)
    assert pace.running(LANE, 9) == Eta(0.0, 0.0)


def test_after_a_miss_what_was_learned_stays_and_nothing_is_counted_twice() -> None:
    pace = Pace()
    served(pace, 2, 1, 10)
    before = pace.waiting(LANE, 5)
    pace.began({100: LANE}, 10)
    pace.lost_count()
    pace.stopped([Left(100, TOOK)], 500, always)
    assert pace.waiting(LANE, 5) == before
    assert repr(pace) == "<Pace of 1 lanes, 0 run; most: []>"


def test_the_estimate_says_where_it_stopped_counting() -> None:
    pace = Pace()
    served(pace, 1, 1, 3)
    assert pace.of(Standing(LANE, None, AHEAD_MAX), 0).at_least
    assert not pace.of(Standing(LANE, None, 5), 0).at_least
    assert pace.of(Standing(LANE, 1000), 1500).finishes_in_s == pytest.approx(0.5, abs=0.1)
