"""When a batch goes out, and how much of it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.merge import Dispatch, Staged, Trigger, decide, prefix_order
from autoglm.types import Message
from runtime.store.protocol import ClaimedTask

WINDOW_S = 0.01


def staged(since: float = 0.0, *, priority: int = 5, blocked: bool = False) -> Staged:
    task = ClaimedTask(1, "id", 1, 0, 0, priority, 0, stream=False)
    return Staged(task, since, blocked)


def decision(
    *requests: Staged, free: int = 8, flying: int = 1, now: float = 0.0, size_max: int = 8
) -> Dispatch | None:
    return decide(requests, free, flying, now, WINDOW_S, size_max)


def test_an_idle_engine_gets_what_there_is_at_once() -> None:
    assert decision(staged(), staged(), flying=0) == Dispatch(Trigger.IDLE, 2)


def test_a_new_arrival_waits_the_window_and_no_longer() -> None:
    assert decision(staged(0.0), now=0.009) is None
    assert decision(staged(0.005), staged(0.0), now=0.01) == Dispatch(Trigger.WINDOW, 2)


def test_a_full_batch_goes_at_once() -> None:
    assert decision(staged(), staged(), size_max=2) == Dispatch(Trigger.SIZE, 2)
    assert decision(staged(), staged(), staged(), free=2) == Dispatch(Trigger.SIZE, 2)


def test_priorities_zero_and_one_never_wait() -> None:
    assert decision(staged(), staged(priority=1)) == Dispatch(Trigger.URGENT, 2)
    assert decision(staged(), staged(priority=2)) is None


def test_who_has_waited_for_a_slot_does_not_wait_for_the_window_too() -> None:
    assert decision(staged(blocked=True)) == Dispatch(Trigger.SLOT, 1)


def test_nothing_goes_into_a_full_engine() -> None:
    assert decision(staged(), free=0, flying=0, now=9) is None


REQUESTS = st.lists(
    st.builds(
        staged,
        st.floats(0, 1),
        priority=st.integers(0, 9),
        blocked=st.booleans(),
    ),
    max_size=12,
)


@given(REQUESTS, st.integers(0, 8), st.integers(0, 8), st.floats(0, 2), st.integers(1, 8))
def test_a_batch_fits(
    requests: list[Staged], free: int, flying: int, now: float, size_max: int
) -> None:
    sent = decide(requests, free, flying, now, WINDOW_S, size_max)
    assert sent is None or 1 <= sent.count <= min(free, size_max, len(requests))


@given(REQUESTS, st.integers(1, 8), st.integers(1, 8))
def test_an_idle_engine_is_never_left_waiting(
    requests: list[Staged], free: int, size_max: int
) -> None:
    sent = decide(requests, free, 0, 0.0, WINDOW_S, size_max)
    assert (sent is None) == (not requests)


def test_shared_beginnings_stand_together() -> None:
    def chat(*contents: str) -> ClaimedTask:
        messages = tuple(Message("user", content) for content in contents)
        return ClaimedTask(1, "id", 1, 0, 0, 5, 0, stream=False, messages=messages)

    tasks = [chat("b", "x"), chat("a", "y"), chat("b", "a"), chat("a", "b")]
    ordered = sorted(tasks, key=prefix_order)
    assert [task.messages[0].content for task in ordered] == ["a", "a", "b", "b"]
