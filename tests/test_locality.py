"""Who begins alike runs together, and that weakens neither rank nor shares."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.agenda import Agenda
from actors.policy.locality import SHARED_CHARS, SPAN_MS, Runs, beginning
from actors.policy.rules import ConfiguredRules
from actors.policy.staging import Staging
from actors.policy.window import Window
from autoglm.types import Message, TaskSpec, Usage
from runtime.config import BatchConfig, Config
from runtime.store.protocol import ClaimedTask, Key, Left
from runtime.store.scheduleprotocol import Schedule

SYSTEM = "x" * SHARED_CHARS
RANKS = st.integers(0, 3 * SPAN_MS)
ARRIVALS = st.lists(st.tuples(RANKS, st.none() | st.integers(0, 3)), max_size=40)


def known(keys: list[Key], begins: Mapping[int, int], keys_max: int = 4096) -> Window:
    window = Window(keys_max, complete=True)
    window.arrived(keys, begins)
    return window


def claimed(seq: int, rank: int = 0, begins: str = SYSTEM) -> ClaimedTask:
    return ClaimedTask(seq, str(seq), 1, 0, 0, 5, rank, stream=False, prompt=f"{begins} {seq}")


# ── what counts as a beginning ───────────────────────────────────────────────────────────────────


def test_a_task_begins_with_its_system_message_or_its_first_characters() -> None:
    ask, other = Message("user", "one?"), Message("user", "two?")
    system = Message("system", SYSTEM + "a")
    assert beginning(TaskSpec("a", messages=(system, ask))) is not None
    assert beginning(TaskSpec("a", messages=(system, ask))) == beginning(
        TaskSpec("b", messages=(system, other), tenant="t")
    )
    assert beginning(TaskSpec("a", messages=(Message("system", SYSTEM + "b"), ask))) != beginning(
        TaskSpec("b", messages=(system, ask))
    )
    assert beginning(TaskSpec("a", prompt=SYSTEM + "a")) == beginning(
        TaskSpec("b", messages=(Message("user", SYSTEM + "b"),))
    )


def test_what_is_short_or_odd_begins_with_nothing_worth_it() -> None:
    assert beginning(TaskSpec("a", prompt=SYSTEM[1:])) is None
    assert beginning(TaskSpec("a", messages=(Message("system", "short"),))) is None
    assert beginning(TaskSpec("a", prompt="\ud800" * SHARED_CHARS)) is not None


# ── in a lane ────────────────────────────────────────────────────────────────────────────────────


def test_groups_that_were_handed_in_interleaved_are_taken_one_after_the_other() -> None:
    keys = [(place // 60, place) for place in range(1200)]
    begins = {seq: seq % 60 for _, seq in keys}
    window = known(keys, begins)
    taken: list[Key] = []
    while len(window):
        taken += window.take(7)
    assert sorted(taken) == keys
    groups = [begins[seq] for _, seq in taken]
    assert groups == sorted(groups)


def test_a_run_ends_for_who_comes_and_is_clearly_more_urgent() -> None:
    keys = [(SPAN_MS, 1), (SPAN_MS, 2), (SPAN_MS, 3)]
    window = known(keys, {1: 7, 3: 7})
    assert window.take(1) == [(SPAN_MS, 1)]
    assert window.head == (SPAN_MS, 3)
    window.arrived([(0, 4)])
    assert window.take(1) == [(SPAN_MS, 3)], "it counts as its equal"
    window = known(keys, {1: 7, 3: 7})
    window.take(1)
    window.arrived([(-1, 4)])
    assert window.head == (-1, 4)
    assert window.take(3) == [(-1, 4), (SPAN_MS, 2), (SPAN_MS, 3)]


@given(ARRIVALS, st.lists(st.integers(1, 5), max_size=40), st.integers(4, 50))
def test_nobody_is_passed_by_who_ranks_clearly_behind(
    arrivals: list[tuple[int, int | None]], takes: list[int], keys_max: int
) -> None:
    """Whatever comes and goes between; and everything is taken, once."""
    backlog: dict[Key, int | None] = {}
    window = Window(keys_max, complete=True)
    coming = [((rank, seq), begins) for seq, (rank, begins) in enumerate(arrivals)]
    gave: list[Key] = []
    for count in [*takes, *[keys_max] * (2 * len(arrivals) + 2)]:
        for key, begins in coming[:3]:
            backlog[key] = begins
            window.arrived([key], {} if begins is None else {key[1]: begins})
        del coming[:3]
        if window.wants_refill():
            reading = window.refill_begins(keys_max - len(window))
            found = [
                key for key in sorted(backlog) if reading.after is None or key > reading.after
            ][: reading.limit]
            begun = {key[1]: begins for key in found if (begins := backlog[key]) is not None}
            window.refilled(reading, found, begun)
        for _ in range(count):
            head = window.head if len(window) else None
            for key in window.take(1):
                assert key == head, "what is at the head is what is taken"
                assert key[0] <= min(backlog)[0] + SPAN_MS
                del backlog[key]
                gave.append(key)
    assert not backlog
    assert len(set(gave)) == len(gave) == len(arrivals)


@given(ARRIVALS)
def test_whose_turn_it_is_is_another_question(arrivals: list[tuple[int, int | None]]) -> None:
    """The lanes come in the same order, whatever their tasks begin with."""

    def turns(begins: Mapping[int, int]) -> list[str]:
        agenda = Agenda("mlfq", ConfiguredRules(Config()))
        agenda.lost_count(())
        agenda.learned(Schedule({}, {}))
        lanes = {seq: ("core", "abc"[seq % 3]) for seq in range(len(arrivals))}
        for seq, (rank, _) in enumerate(arrivals):
            agenda.moved({lanes[seq]: [(rank, seq)]}, [], begins=begins)
        order: list[str] = []
        while taken := agenda.take(2):
            order += [lanes[seq][1] for seq in taken]
            agenda.moved({}, [Left(seq, Usage(5, 5)) for seq in taken])
        return order

    alike = {seq: begins for seq, (_, begins) in enumerate(arrivals) if begins is not None}
    assert turns(alike) == turns({})


def test_rank_alone_is_rank_alone() -> None:
    agenda = Agenda("priority", ConfiguredRules(Config()))
    agenda.lost_count(())
    agenda.learned(Schedule({}, {}))
    lane = ("core", "a")
    agenda.moved({lane: [(1, 1), (2, 2), (3, 3)]}, [], begins={1: 7, 3: 7})
    assert agenda.take(3) == (1, 2, 3)


# ── between a claim and the engine ───────────────────────────────────────────────────────────────


def test_a_run_stays_one_among_what_is_staged() -> None:
    staging = Staging(BatchConfig())
    staging.add([claimed(1, 10), claimed(9, 90)], 0.0)
    staging.add([claimed(2, 20, "y" * SHARED_CHARS), claimed(3, 5, "short")], 0.0)
    batch = staging.next_batch(1, 0, 0.0)
    assert batch is not None
    order = [task.seq for task in (*batch.tasks, *staging.clear())]
    assert order == [3, 1, 9, 2]


@given(st.lists(st.tuples(RANKS, st.sampled_from("xyz")), max_size=20))
def test_a_run_stands_at_no_better_a_rank_than_its_equals(drawn: list[tuple[int, str]]) -> None:
    runs = Runs()
    for seq, (rank, letter) in enumerate(drawn):
        task = claimed(seq, rank, letter * SHARED_CHARS)
        first = runs.joined(task)
        assert first is not None
        assert first <= (rank, seq)
        assert rank - first[0] <= SPAN_MS
