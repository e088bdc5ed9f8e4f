"""The breaker, against a model that keeps the whole history; boundaries exact."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.breaker import Breaker, BreakerOptions, BreakerState, FailureRatio

NEVER = 10**9


def tripped_by(options: BreakerOptions, calls: Sequence[tuple[float, bool]]) -> bool:
    breaker = Breaker(options)
    for now, good in calls:
        if good:
            breaker.succeeded()
        else:
            breaker.failed(now, 0.5)
    return breaker.state is BreakerState.OPEN


def test_three_failures_in_a_row_are_borne_and_the_fourth_trips() -> None:
    options = BreakerOptions(window_failures=NEVER)
    assert not tripped_by(options, [(0, False)] * 3)
    assert tripped_by(options, [(0, False)] * 4)
    assert not tripped_by(options, [(0, False)] * 3 + [(0, True)] + [(0, False)] * 3)


def test_five_failures_within_sixty_seconds_trip_and_a_little_longer_does_not() -> None:
    options = BreakerOptions(consecutive_max=NEVER)
    assert tripped_by(options, [(second, False) for second in (0, 15, 30, 45, 60)])
    assert not tripped_by(options, [(second, False) for second in (0, 15, 30, 45, 60.001)])


@settings(max_examples=200, deadline=None)
@given(
    calls=st.lists(st.booleans(), max_size=60),
    number=st.integers(1, 12),
    share=st.sampled_from([0.1, 0.5, 0.75, 1.0]),
)
def test_a_ratio_is_exceeded_exactly_when_more_than_its_share_of_the_last_calls_failed(
    calls: list[bool], number: int, share: float
) -> None:
    ratio = FailureRatio(BreakerOptions(ratio_calls=number, ratio_max=share))
    for count, good in enumerate(calls, start=1):
        last = calls[max(0, count - number) : count]
        expected = count >= number and last.count(False) > share * number
        assert ratio.exceeded_by(good=good) == expected


def test_half_of_ten_calls_may_fail_and_six_may_not() -> None:
    ratio = FailureRatio(BreakerOptions())
    assert not any(ratio.exceeded_by(good=good) for good in (False, True) * 5)
    assert not any(ratio.exceeded_by(good=good) for good in (False, True))
    assert not ratio.exceeded_by(good=True)
    assert [ratio.exceeded_by(good=False) for _ in range(3)] == [False, False, True]
    ratio.clear()
    assert [ratio.exceeded_by(good=False) for _ in range(10)] == [False] * 9 + [True]


def test_told_to_it_trips_at_the_first_failure() -> None:
    breaker = Breaker(BreakerOptions())
    breaker.failed(0.0, 0.5, trip=True)
    assert breaker.state is BreakerState.OPEN


def test_an_open_breaker_holds_for_its_jittered_delay_then_allows_one_try() -> None:
    breaker = Breaker(BreakerOptions(delay_first_s=8))
    for _ in range(4):
        breaker.failed(100.0, draw=0.5)
    assert breaker.state is BreakerState.OPEN
    assert breaker.wait_s(100.0) == 4.0
    assert breaker.wait_s(103.0) == 1.0
    assert breaker.wait_s(104.0) == 0.0
    breaker.try_now(104.0)
    assert breaker.state is BreakerState.HALF_OPEN


def test_a_failed_probe_doubles_the_delay_up_to_the_longest() -> None:
    breaker = Breaker(BreakerOptions(delay_first_s=1, delay_max_s=4, probes_max=99))
    now, delays = 0.0, list[float]()
    for _ in range(3):
        breaker.failed(now, draw=0.999_999)
    for _ in range(5):
        breaker.failed(now, draw=0.999_999)
        delays.append(round(breaker.wait_s(now), 3))
        now += delays[-1] + 1
        breaker.try_now(now)
    assert delays == [1, 2, 4, 4, 4]


def test_a_good_probe_closes_the_breaker_and_wipes_the_slate() -> None:
    breaker = Breaker(BreakerOptions())
    for _ in range(4):
        breaker.failed(0.0, draw=0.5)
    breaker.try_now(10.0)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    for _ in range(3):
        breaker.failed(10.0, draw=0.5)
    assert breaker.state is BreakerState.CLOSED


def test_it_is_hopeless_after_the_allowed_probes_and_stable_uptime_forgives() -> None:
    breaker = Breaker(BreakerOptions(probes_max=2))
    for _ in range(4):
        breaker.failed(0.0, draw=0.5)
    for probe in range(2):
        assert not breaker.hopeless, f"after {probe} failed probes"
        breaker.try_now(1000.0 * (probe + 1))
        breaker.failed(1000.0 * (probe + 1), draw=0.5)
    assert breaker.hopeless
    breaker.settled()
    assert not breaker.hopeless


@given(wait_s=st.floats(-1e12, 1e12), trips=st.integers(1, 100))
def test_what_is_remembered_holds_no_longer_than_it_could_have_whatever_the_clock_did(
    wait_s: float, trips: int
) -> None:
    breaker = Breaker(BreakerOptions(delay_max_s=30, probes_max=8))
    breaker.go_on(1000.0, trips, wait_s)
    assert breaker.wait_s(1000.0) == pytest.approx(min(max(wait_s, 0), 30))
    breaker.try_now(1030.0)
    assert breaker.state is BreakerState.HALF_OPEN
    breaker.failed(1030.0, 0.5)
    assert breaker.hopeless == (trips >= 8)


def test_open_always_means_a_pause() -> None:
    breaker = Breaker(BreakerOptions())
    for _ in range(4):
        breaker.failed(0.0, draw=0.0)
    assert breaker.wait_s(0.0) > 0


@pytest.mark.parametrize(
    "options",
    [
        {"consecutive_max": -1},
        {"window_failures": 0},
        {"ratio_calls": 0},
        {"ratio_max": 0.0},
        {"ratio_max": 1.1},
        {"window_s": 0.0},
        {"delay_first_s": 0.0},
        {"delay_first_s": 2.0, "delay_max_s": 1.0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="breaker's"):
        BreakerOptions(**options)  # pyright: ignore[reportArgumentType]


class Model:
    """The rules in plain words, over the whole history since the breaker last closed."""

    def __init__(self, options: BreakerOptions) -> None:
        self.options = options
        self.calls: list[tuple[float, bool]] = []
        self.row = 0
        self.state = BreakerState.CLOSED

    def succeeded(self, now: float) -> None:
        self.row = 0
        self.calls.append((now, True))
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.CLOSED
            self.calls = []

    def failed(self, now: float) -> None:
        self.row += 1
        self.calls.append((now, False))
        options = self.options
        fresh = [at for at, good in self.calls if not good and now - at <= options.window_s]
        too_many = self.row > options.consecutive_max or len(fresh) >= options.window_failures
        if self.state is BreakerState.HALF_OPEN or (self.state is BreakerState.CLOSED and too_many):
            self.state = BreakerState.OPEN


@settings(max_examples=300, deadline=None)
@given(
    options=st.builds(
        BreakerOptions,
        consecutive_max=st.integers(0, 6),
        window_failures=st.integers(1, 6),
        window_s=st.sampled_from([1.0, 10.0, 60.0]),
    ),
    steps=st.lists(
        st.tuples(st.sampled_from(["good", "bad", "bad", "settled"]), st.sampled_from([0, 1, 15])),
        max_size=50,
    ),
)
def test_it_trips_exactly_when_the_rules_say(
    options: BreakerOptions, steps: list[tuple[str, int]]
) -> None:
    breaker, model, now = Breaker(options), Model(options), 0.0
    for what, seconds in steps:
        now += seconds
        if breaker.state is BreakerState.OPEN:
            now += breaker.wait_s(now)
            breaker.try_now(now)
            model.state = BreakerState.HALF_OPEN
        if what == "good":
            breaker.succeeded()
            model.succeeded(now)
        elif what == "bad":
            breaker.failed(now, draw=0.5)
            model.failed(now)
        else:
            breaker.settled()
            model.row = 0
        assert breaker.state is model.state
