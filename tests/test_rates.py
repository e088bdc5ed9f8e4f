"""Rates of tenants: never more than rate and burst allow, and nobody is held for ever."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.agenda import Agenda
from actors.policy.rates import MINUTE_S, Bucket, Minute, Rates
from actors.policy.rules import ConfiguredRules
from autoglm.types import Usage
from runtime.config import Config
from runtime.queueconfig import TenantConfig
from runtime.store.protocol import Left
from runtime.store.scheduleprotocol import Schedule

RATES = st.floats(0.01, 10)
PAUSES = st.lists(st.floats(0, 3), max_size=20)


@given(RATES, PAUSES)
def test_a_bucket_never_gives_more_than_rate_and_burst(rate: float, pauses: list[float]) -> None:
    bucket, now = Bucket(rate, 0), 0.0
    given_at: list[float] = []
    for pause in pauses:
        now += pause
        count = bucket.has(now)
        bucket.take(count, now)
        given_at += [now] * count
    for first, begin in enumerate(given_at):
        for last in range(first, len(given_at)):
            most = rate * (given_at[last] - begin) + bucket.burst
            assert last - first + 1 <= most + 1e-6


@given(RATES, st.floats(0, 1e6))
def test_a_bucket_gives_one_once_it_has_been_waited_for(rate: float, now: float) -> None:
    bucket = Bucket(rate, now)
    bucket.take(bucket.has(now), now)
    assert bucket.has(now + bucket.wait_s(now) + 0.001) >= 1


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 100)), max_size=60), st.integers(1, 500))
def test_a_minute_is_the_sum_of_its_seconds(taken: Sequence[tuple[float, int]], limit: int) -> None:
    minute, now = Minute(), 0.0
    log: list[tuple[float, int]] = []
    for pause, tokens in taken:
        now += pause
        minute.add(tokens, now)
        log.append((now, tokens))
        last_minute = sum(tokens for at, tokens in log if at > now - MINUTE_S)
        a_second_more = sum(tokens for at, tokens in log if at > now - MINUTE_S - 1)
        assert last_minute <= minute.total(now) <= a_second_more
        wait_s = minute.wait_s(limit, now)
        assert (wait_s == 0) == (minute.total(now) < limit)
    assert minute.total(now + minute.wait_s(limit, now) + 0.001) < limit


class Stage:
    """An agenda with one rated tenant and one free, each with more work than it can do."""

    def __init__(self, policy: str, tenant: TenantConfig) -> None:
        config = Config(tenants={"rated": tenant})
        self.rates = Rates(config.tenants, 0)
        self.agenda = Agenda(policy, ConfiguredRules(config), self.rates)
        self.agenda.lost_count(())
        self.agenda.learned(Schedule({}, {}))
        self.agenda.moved({("normal", "rated"): [(n, n) for n in range(1000)]}, ())
        self.agenda.moved({("normal", "free"): [(n, n) for n in range(1000, 1010)]}, ())
        self.now = 0.0

    def at(self, now: float) -> None:
        self.now = now
        self.agenda.tick(now)

    def take(self, count: int = 1000) -> list[int]:
        """Of the rated tenant."""
        return [seq for seq in self.agenda.take(count) if seq < 1000]

    def end(self, seqs: Sequence[int], tokens: int = 0) -> None:
        self.agenda.moved({}, [Left(seq, Usage(0, tokens)) for seq in seqs])


policies = pytest.mark.parametrize("policy", ["mlfq", "round_robin", "priority"])


@policies
def test_tasks_a_second_hold_who_is_over_and_nobody_else(policy: str) -> None:
    stage = Stage(policy, TenantConfig(tasks_per_s=5))
    taken = stage.agenda.take(1000)
    assert len([seq for seq in taken if seq < 1000]) == 5
    assert len([seq for seq in taken if seq >= 1000]) == 10
    assert stage.agenda.next_tick == pytest.approx(0.2)
    begun = 5
    while stage.now < 10:
        assert stage.agenda.next_tick is not None
        stage.at(stage.agenda.next_tick)
        begun += len(stage.take())
        assert begun <= 5 * stage.now + 5
    assert begun >= 5 * 10


@policies
def test_tokens_of_a_minute_hold_until_it_is_over(policy: str) -> None:
    stage = Stage(policy, TenantConfig(tokens_per_min=100))
    taken = stage.take()
    assert len(taken) == 1, "what it will take is not known yet"
    assert not stage.take(), "it runs, and may take all there is"
    stage.end(taken, 100)
    assert not stage.take()
    stage.at(MINUTE_S - 1)
    assert not stage.take()
    assert stage.agenda.next_tick is not None
    stage.at(stage.agenda.next_tick)
    assert stage.now <= MINUTE_S + 1
    assert len(stage.take()) == 1


@policies
def test_a_minute_has_as_many_at_once_as_are_expected_to_fit(policy: str) -> None:
    stage = Stage(policy, TenantConfig(tokens_per_min=100_000))
    total = 0
    for _ in range(200):
        taken = stage.take(20)
        stage.end(taken, 50)
        total += 50 * len(taken)
    assert 50_000 <= total <= 100_000 + 20 * 50


def test_who_is_rejected_at_the_door_is_not_held() -> None:
    stage = Stage("mlfq", TenantConfig(tasks_per_s=1, over_quota="reject"))
    assert len(stage.take()) > 900
    assert stage.rates.room("rated", 0) == (1, 1, 1)
    assert stage.rates.room("free", 0) is None
    stage.rates.taken_in("rated", 1, 0)
    assert stage.rates.room("rated", 0.5) == (0, 1, 1)


def test_tokens_over_the_minute_close_the_door() -> None:
    stage = Stage("mlfq", TenantConfig(tokens_per_min=10, over_quota="reject"))
    stage.end(stage.take(1), 10)
    assert stage.rates.closed_s("rated", 0) == MINUTE_S + 1
    assert stage.rates.closed_s("rated", MINUTE_S + 1) == 0
