"""Ranks: urgent first, but nobody waits for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.rank import HOUR_MS, ranker
from autoglm.types import TaskSpec

ranked = ranker("priority")
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
    assert ranker("fifo")(task(priority, deadline), at) == at
