"""Ranks: urgent first, but nobody waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.rank import HOUR_MS, ranker
from autoglm.types import TaskSpec
from runtime.store.protocol import Answered

ranked = ranker("priority").rank
PRIORITY, TIME = st.integers(0, 9), st.integers(0, 2**45)


def task(priority: int = 5, deadline_at: int | None = None) -> TaskSpec:
    return TaskSpec("id", prompt="p", priority=priority, deadline_at=deadline_at)


@given(TIME, PRIORITY, PRIORITY)
def test_of_two_that_come_together_the_smaller_number_goes_first(at: int, a: int, b: int) -> None:
    assert (ranked(task(a), at) < ranked(task(b), at)) == (a < b)


@given(TIME, PRIORITY, PRIORITY)
def test_a_task_passes_every_more_urgent_one_that_comes_nine_hours_later(
    at: int, patient: int, urgent: int
) -> None:
    assert ranked(task(patient), at) <= ranked(task(urgent), at + 9 * HOUR_MS)


@given(TIME, PRIORITY, TIME)
def test_a_deadline_only_ever_moves_a_task_forward(at: int, priority: int, deadline: int) -> None:
    assert ranked(task(priority, deadline), at) <= ranked(task(priority), at)


@given(TIME, PRIORITY, TIME)
def test_an_overdue_task_goes_before_all_submitted_after_its_deadline(
    deadline: int, priority: int, later: int
) -> None:
    assert ranked(task(9, deadline), 0) <= ranked(task(priority), deadline + later)


@given(TIME, PRIORITY, TIME)
def test_fifo_knows_no_priority(at: int, priority: int, deadline: int) -> None:
    assert ranker("fifo").rank(task(priority, deadline), at) == at


@given(TIME, PRIORITY, st.integers(1, 4000), st.integers(0, 2**40))
def test_what_is_expected_to_be_short_moves_forward_by_less_than_a_level(
    at: int, priority: int, tokens: int, age_ms: int
) -> None:
    learned = ranker("mlfq")
    plain = ranked(task(priority), at)
    assert learned.rank(task(priority), at) == plain, "nothing is known yet"
    learned.answered(Answered("default", None, 1, tokens, age_ms))
    learned.answered(Answered("default", "long", 1, 100 * tokens, age_ms))
    moved = plain - learned.rank(task(priority), at)
    assert 0 <= moved < HOUR_MS


def test_of_two_kinds_the_shorter_one_goes_first() -> None:
    learned = ranker("mlfq")
    for _ in range(20):
        learned.answered(Answered("default", "short", 1, 10, 60_000))
        learned.answered(Answered("default", "long", 1, 1000, 60_000))
    short, long = (TaskSpec("id", prompt="p", kind=kind) for kind in ("short", "long"))
    assert learned.rank(short, 30_000) < learned.rank(long, 0)
    assert learned.rank(short, 60_001) > learned.rank(long, 0), "only as long as tasks wait"
