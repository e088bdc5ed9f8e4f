"""The window on a lane, against the plain sorted set of everything that is pending in it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from actors.policy.window import Refill, Window
from runtime.store.protocol import Key


def keys(*ranks: int) -> list[Key]:
    return [(rank, rank) for rank in ranks]


def begins(window: Window) -> Refill:
    """The read of as many as there is room for."""
    return window.refill_begins(window.keys_max - len(window))


def take(window: Window, count: int) -> list[Key]:
    return window.take(count)


def refill(window: Window, backlog: list[Key]) -> None:
    wanted = begins(window)
    window.refilled(wanted, read(wanted, backlog))


def read(wanted: Refill, backlog: list[Key]) -> list[Key]:
    return [key for key in sorted(backlog) if wanted.after is None or key > wanted.after][
        : wanted.limit
    ]


def test_it_knows_nothing_until_it_has_read_the_store() -> None:
    window = Window(10)
    window.arrived(keys(3))
    assert len(window) == 0
    assert window.wants_refill()
    refill(window, keys(3, 1, 2))
    assert take(window, 2) == keys(1, 2)


def test_one_that_saw_everything_keeps_every_arrival() -> None:
    window = Window(10)
    refill(window, [])
    window.arrived(keys(5, 3, 4))
    assert not window.wants_refill()
    assert take(window, 9) == keys(3, 4, 5)


def test_an_urgent_arrival_evicts_the_worst() -> None:
    window = Window(4)
    refill(window, keys(10, 20, 30, 40, 50))
    window.arrived(keys(5))
    assert take(window, 9) == keys(5, 10)
    refill(window, keys(20, 30, 40, 50))
    assert take(window, 9) == keys(20, 30, 40, 50)


def test_an_arrival_during_a_refill_is_not_forgotten() -> None:
    window = Window(10)
    wanted = begins(window)
    window.arrived(keys(2))
    window.refilled(wanted, keys(1))
    assert take(window, 9) == keys(1, 2)


def test_an_arrival_that_the_refill_saw_too_comes_once() -> None:
    window = Window(10)
    wanted = begins(window)
    window.arrived(keys(1))
    window.refilled(wanted, keys(1))
    window.arrived(keys(1))
    assert take(window, 9) == keys(1)


def test_a_failed_refill_is_wanted_again() -> None:
    window = Window(10)
    wanted = begins(window)
    assert not window.wants_refill()
    window.refill_failed(wanted)
    assert window.wants_refill()


def test_an_answer_from_before_it_lost_count_is_ignored() -> None:
    window = Window(10)
    old = begins(window)
    window.refilled(old, keys(1))
    window.keep(0)
    window.refilled(old, keys(1))
    assert len(window) == 0
    assert window.wants_refill()
    assert window.head == (1, 1), "where it began is known"
    assert repr(window) == "<Window 0 keys, sees to None>"


def test_an_answer_to_an_earlier_instance_is_ignored() -> None:
    old, window = Window(10), Window(10)
    asked_before = begins(old)
    asked = begins(window)
    window.refill_failed(asked_before)
    assert not window.wants_refill()
    window.refilled(asked_before, [])
    window.refill_failed(asked)
    assert window.wants_refill(), "it believes that it saw everything"


def test_a_refill_from_before_an_eviction_is_read_anew() -> None:
    window = Window(4)
    refill(window, keys(10, 20, 30, 40, 50))
    assert take(window, 2) == keys(10, 20)
    wanted = begins(window)
    window.arrived(keys(1, 2, 3))
    window.refilled(wanted, keys(50))
    assert take(window, 2) == keys(1, 2)
    assert window.wants_refill()
    refill(window, keys(3, 30, 40, 50))
    assert take(window, 9) == keys(3, 30, 40, 50)


def test_a_key_that_is_gone_is_not_handed_out_though_a_read_saw_it() -> None:
    window = Window(10)
    wanted = begins(window)
    window.gone(keys(1))
    window.arrived(keys(3))
    window.refilled(wanted, keys(1, 2))
    assert take(window, 9) == keys(2, 3)


def test_a_key_that_went_and_came_back_is_there_once() -> None:
    window = Window(10)
    wanted = begins(window)
    window.gone(keys(1))
    window.arrived(keys(2))
    window.gone(keys(2))
    window.arrived(keys(1))
    window.refilled(wanted, keys(1))
    assert take(window, 9) == keys(1)


@settings(max_examples=500, deadline=None)
@given(
    keys_max=st.integers(2, 12),
    operations=st.lists(
        st.tuples(
            st.sampled_from(
                ["arrive", "arrive", "arrive", "edit", "take", "begin", "end", "fail", "cut"]
            ),
            st.integers(0, 30),
        ),
        max_size=80,
    ),
)
def test_it_hands_out_the_backlog_in_order_with_none_forgotten_and_none_twice(
    keys_max: int, operations: list[tuple[str, int]]
) -> None:
    window = Window(keys_max)
    pending: set[Key] = set()
    reading: tuple[Refill, list[Key]] | None = None
    claimed: set[Key] = set()
    number = 0
    for name, value in operations:
        match name:
            case "arrive":
                number += 1
                pending.add((value, number))
                window.arrived([(value, number)])
            case "edit" if pending:
                old = sorted(pending)[value % len(pending)]
                pending.discard(old)
                pending.add((value, old[1]))
                window.gone([old])
                window.arrived([(value, old[1])])
            case "take":
                before = sorted(pending)
                taken = take(window, value % 4)
                assert taken == before[: len(taken)], "not the most urgent first"
                pending.difference_update(taken)
                claimed.update(taken)
            case "begin" if reading is None and window.wants_refill():
                wanted = begins(window)
                reading = wanted, read(wanted, list(pending))
            case "end" if reading is not None:
                # What was taken meanwhile can't be pending; the store's claim passes it over.
                wanted, found = reading
                window.refilled(wanted, [key for key in found if key not in claimed])
                reading = None
            case "fail" if reading is not None:
                window.refill_failed(reading[0])
                reading = None
            case "cut":
                window.keep(value % 4)
            case _:
                pass
        assert len(window) <= keys_max
    if reading is not None:
        window.refill_failed(reading[0])
    rest: list[Key] = []
    while pending - set(rest):
        if window.wants_refill():
            refill(window, list(pending - set(rest)))
        taken = take(window, 3)
        assert taken, "a pending task is forgotten"
        rest += taken
    assert rest == sorted(pending)
