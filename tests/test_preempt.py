"""Whoever is stopped is stopped for a reason, and not for ever."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.merge import URGENT_PRIORITY
from actors.policy.preempt import (
    STOPS_MAX,
    Running,
    Waiting,
    for_shorter,
    for_urgent,
    slot_frees_in,
)

FREE, DEAR = 0.0, 1e6
"""Steps that prefilling a token takes."""
PRICE = st.floats(0, 10)
RUNNING = st.lists(
    st.builds(
        Running,
        seq=st.integers(0, 10**6),
        priority=st.integers(0, 9),
        prompt=st.integers(1, 10_000),
        made=st.integers(0, 2000),
        expected=st.floats(0, 2000),
        stops=st.integers(0, STOPS_MAX),
    ),
    min_size=1,
    max_size=16,
    unique_by=lambda each: each.seq,
)
WAITING = st.lists(st.builds(Waiting, st.integers(0, 9), st.floats(0, 2000)), max_size=16)


def bulk(seq: int, made: int = 10, prompt: int = 100, stops: int = 0) -> Running:
    return Running(seq, 5, prompt, made, 200.0, stops)


@given(RUNNING, WAITING, PRICE)
def test_nobody_urgent_is_stopped_and_nobody_too_often(
    running: list[Running], waiting: list[Waiting], price: float
) -> None:
    stopped = {*for_urgent(running, waiting, price)}
    assert all(
        each.priority > URGENT_PRIORITY and each.stops < STOPS_MAX
        for each in running
        if each.seq in stopped
    )


@given(RUNNING, WAITING, PRICE)
def test_no_more_are_stopped_than_urgent_ones_wait(
    running: list[Running], waiting: list[Waiting], price: float
) -> None:
    urgent = sum(each.priority <= URGENT_PRIORITY for each in waiting)
    stopped = for_urgent(running, waiting, price)
    assert len(set(stopped)) == len(stopped) <= urgent


@given(RUNNING, WAITING, PRICE)
def test_what_is_stopped_comes_back_sooner_than_a_slot_would_have_freed(
    running: list[Running], waiting: list[Waiting], price: float
) -> None:
    by_seq, pause = {each.seq: each for each in running}, slot_frees_in(running)
    for count, seq in enumerate(for_urgent(running, waiting, price), start=1):
        assert by_seq[seq].again * price < count * pause


@given(RUNNING, WAITING)
def test_nothing_is_stopped_where_prefill_is_dear(
    running: list[Running], waiting: list[Waiting]
) -> None:
    assert not for_urgent(running, waiting, DEAR)
    assert not for_shorter(running, waiting, DEAR)


def test_the_one_that_is_cheapest_to_bring_back_is_stopped() -> None:
    running = [bulk(1, made=50), bulk(2, made=5), bulk(3, made=90)]
    assert for_urgent(running, [Waiting(0, 50)], FREE) == (2,)
    assert for_urgent(running, [Waiting(0, 50), Waiting(1, 9), Waiting(5, 9)], FREE) == (2, 1)


def test_nobody_is_stopped_when_those_who_stand_still_lose_more() -> None:
    """Prefill stops the urgent ones that run: one of them bears what ten would not."""
    quick = [Running(seq, 0, 10, 10, 12.0) for seq in range(10)]
    alone, crowded = [bulk(90), bulk(91)], [bulk(90), bulk(91), *quick]
    price = 0.9 * slot_frees_in(crowded) / bulk(90).again
    assert for_urgent(alone, [Waiting(0, 50)], price)
    assert not for_urgent(crowded, [Waiting(0, 50)], price)


def test_a_generation_within_its_quantum_is_not_stopped_for_a_shorter_one() -> None:
    assert for_shorter([bulk(1, made=199)], [Waiting(5, 5)], FREE) == ()
    assert for_shorter([bulk(1, made=200)], [Waiting(5, 5)], FREE) == (1,)


def test_nobody_is_stopped_for_one_who_is_longer_or_less_urgent() -> None:
    running = [bulk(1, made=300)]
    assert for_shorter(running, [Waiting(5, 1000)], FREE) == ()
    assert for_shorter(running, [Waiting(6, 5)], FREE) == ()


def test_who_was_stopped_often_enough_runs_to_the_end() -> None:
    running = [bulk(1, made=300, stops=STOPS_MAX)]
    assert for_urgent(running, [Waiting(0, 5)], FREE) == ()
    assert for_shorter(running, [Waiting(5, 5)], FREE) == ()
