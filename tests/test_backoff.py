"""Back-off: exponential up to a cap, with full jitter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runtime.backoff import ceiling, full_jitter


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    assert [ceiling(failures, 0.5, 30) for failures in range(1, 9)] == [
        *(0.5, 1, 2, 4, 8, 16, 30, 30),
    ]


def test_a_thousand_failures_do_not_overflow() -> None:
    assert ceiling(100_000, 0.5, 30) == 30


@given(failures=st.integers(1, 10_000), draw=st.floats(0, 1, exclude_max=True))
def test_a_delay_lies_between_nothing_and_the_ceiling(failures: int, draw: float) -> None:
    assert 0 <= full_jitter(failures, 0.5, 30, draw) <= ceiling(failures, 0.5, 30)
