"""Poison is found by halving: the policies on a model of an engine, in any order of events."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.policy.merge import Trigger
from actors.policy.poison import (
    Turn,
    convicted,
    deaths_max,
    is_suspect,
    trial_max,
    trial_size,
    whose_turn,
)
from actors.policy.retry import outcome
from actors.policy.staging import Batch, Staging
from autoglm.types import TaskState
from model.engine import Completion, EngineRequest
from model.flight import Flight, Lost
from runtime.config import BatchConfig, RetryConfig
from runtime.store.protocol import ClaimedTask

DIED = Lost("gone")


class Replica:
    """One engine and what waits for it."""

    def __init__(self) -> None:
        self.staging = Staging(BatchConfig(window_ms=0))
        self.flights: list[Flight[ClaimedTask]] = []


class Queue:
    """Tasks numbered from 0, those in `poisons` kill, on engines of `slots` slots. Poison may take
    its time: before it kills, others may be answered and yet others join.
    """

    def __init__(
        self, tasks: int, poisons: set[int], slots: int, replicas: int, rng: random.Random
    ) -> None:
        self._poisons = poisons
        self._slots = slots
        self._rng = rng
        self._replicas = [Replica() for _ in range(replicas)]
        self._to_come = [
            ClaimedTask(seq, f"{seq}", 1, 0, 0, 5, seq, stream=False, prompt="")
            for seq in range(tasks)
        ]
        self._pending: list[ClaimedTask] = []
        self._now = 0.0
        self.deaths = 0
        self.answered: set[int] = set()
        self.dead: set[int] = set()

    def run(self, *, restarts: int) -> None:
        while self._to_come or self._pending or any(map(_busy, self._replicas)):
            self._now += 1
            arriving = self._rng.randint(0, len(self._to_come))
            self._pending += self._to_come[:arriving]
            del self._to_come[:arriving]
            if restarts and self._rng.random() < 0.05:
                restarts -= 1
                self._restart_server()
            self._turn(self._rng.choice(self._replicas))

    def _turn(self, replica: Replica) -> None:
        staging, flights = replica.staging, replica.flights
        room = max(0, staging.room(self._slots) - len(flights))
        self._pending.sort(key=lambda task: task.rank)
        staging.add(self._pending[:room], self._now)
        del self._pending[:room]
        while batch := staging.next_batch(self._slots, len(flights), self._now):
            self._check(batch, flights)
            flights += [
                Flight(EngineRequest(task.id, 1), task, trial=batch.trial) for task in batch.tasks
            ]
        deadly = any(flight.task.seq in self._poisons for flight in flights)
        for flight in list(flights):
            if flight.task.seq not in self._poisons and self._rng.random() < 0.5:
                flights.remove(flight)
                self._end(flight, Completion("", 1, "text", "stop"))
        if deadly and self._rng.random() < 0.7:
            self.deaths += 1
            for flight in flights:
                self._end(flight, DIED)
            flights.clear()
            self._pending += staging.clear()

    def _check(self, batch: Batch, flights: list[Flight[ClaimedTask]]) -> None:
        assert len(batch.tasks) + len(flights) <= self._slots
        assert all(is_suspect(task.deaths) == bool(batch.trial) for task in batch.tasks)
        assert not any(flight.trial for flight in flights), "somebody joins suspects on trial"
        assert not (batch.trial and flights), "suspects join others"

    def _end(self, flight: Flight[ClaimedTask], ended: Completion | Lost) -> None:
        flight.ended = ended
        task, seen = flight.task, outcome(flight, RetryConfig(), 0.5)
        match seen.state:
            case TaskState.SUCCEEDED:
                self.answered.add(task.seq)
            case TaskState.DEAD:
                self.dead.add(task.seq)
            case _:
                assert not seen.charged, "somebody pays for another's deed"
                self._pending.append(msgspec.structs.replace(task, deaths=task.deaths + seen.died))

    def _restart_server(self) -> None:
        for replica in self._replicas:
            self._pending += replica.staging.clear()
            self._pending += [flight.task for flight in replica.flights]
        self._replicas = [Replica() for _ in self._replicas]


def _busy(replica: Replica) -> bool:
    return bool(replica.flights or len(replica.staging))


@settings(deadline=None, max_examples=300)
@given(
    st.integers(1, 120),
    st.sets(st.integers(0, 119), max_size=8),
    st.integers(1, 70),
    st.integers(1, 3),
    st.integers(0, 4),
    st.integers(0, 2**32).map(random.Random),
)
def test_poison_dies_everybody_else_is_answered_and_the_deaths_are_bounded(
    tasks: int, poisons: set[int], slots: int, replicas: int, restarts: int, rng: random.Random
) -> None:
    poisons &= set(range(tasks))
    queue = Queue(tasks, poisons, slots, replicas, rng)
    queue.run(restarts=restarts)
    assert queue.dead == poisons
    assert queue.answered == set(range(tasks)) - poisons
    assert queue.deaths <= len(poisons) * deaths_max(slots)


@pytest.mark.parametrize("number", range(10))
def test_one_poison_among_a_thousand_tasks_at_256_slots_costs_ten_deaths(number: int) -> None:
    rng = random.Random(number)
    poison = rng.randrange(1000)
    queue = Queue(1000, {poison}, 256, 1, rng)
    queue.run(restarts=0)
    assert queue.dead == {poison}
    assert len(queue.answered) == 999
    assert queue.deaths <= deaths_max(256) == 10


def test_each_death_halves_the_company_down_to_one() -> None:
    assert [trial_max(deaths, 256) for deaths in range(2, 11)] == [128, 64, 32, 16, 8, 4, 2, 1, 1]
    assert trial_max(50, 3) == 1


def test_a_trial_is_as_small_as_the_most_suspect_of_it_demands() -> None:
    assert trial_size([2] * 9, 8) == 4
    assert trial_size([2, 2, 3, 2], 8) == 2
    assert trial_size([4, 2], 8) == 1
    assert trial_size([2], 8) == 1


def test_only_a_suspect_that_was_alone_is_convicted() -> None:
    assert convicted(2, 1)
    assert not convicted(1, 1)
    assert not convicted(9, 2)
    assert not convicted(9, 0)


def test_after_a_trial_others_get_as_many_turns_as_there_are_slots() -> None:
    def turn(others: int, served: int, flying: int = 0, *, settled: bool = True) -> Turn:
        return whose_turn(3, others, served, 8, flying, settled=settled)

    assert turn(others=5, served=7) is Turn.OTHERS
    assert turn(others=5, served=8, flying=1) is Turn.NOBODY
    assert turn(others=5, served=8) is Turn.TRIAL
    assert turn(others=0, served=0, settled=False) is Turn.NOBODY
    assert turn(others=0, served=0) is Turn.TRIAL


def test_others_are_served_between_any_two_trials() -> None:
    staging = Staging(BatchConfig())
    staging.add(_tasks(range(64), deaths=2), now=0)
    staging.add(_tasks(range(64, 80), deaths=0), now=0)
    order: list[tuple[Trigger, int]] = []
    while batch := staging.next_batch(8, 0, now=1):
        order.append((batch.trigger, len(batch.tasks)))
    assert order[:4] == [
        *((Trigger.IDLE, 8), (Trigger.TRIAL, 4), (Trigger.IDLE, 8), (Trigger.TRIAL, 4))
    ]


def test_suspects_take_no_room_from_the_others() -> None:
    staging = Staging(BatchConfig())
    assert staging.room(8) == 10
    staging.add(_tasks(range(8), deaths=2), now=0)
    assert staging.room(8) == 10
    staging.add(_tasks(range(8, 30), deaths=2), now=0)
    assert staging.room(8) <= 0


def test_suspects_wait_the_window_for_others_to_come() -> None:
    staging = Staging(BatchConfig(window_ms=10))
    staging.add(_tasks([1], deaths=2), now=1.0)
    assert staging.next_batch(8, 0, now=1.0) is None
    assert staging.wake_at == 1.01
    assert staging.next_batch(8, 0, now=1.01) == Batch(Trigger.TRIAL, _tasks([1], deaths=2))


def _tasks(seqs: range | list[int], *, deaths: int) -> tuple[ClaimedTask, ...]:
    return tuple(
        ClaimedTask(seq, f"{seq}", 1, 0, deaths, 5, seq, stream=False, prompt="") for seq in seqs
    )
