"""What a waiting person sees: shares used and due, estimates, and what holds whom."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.due import shares_due
from actors.policy.pace import Pace
from actors.policy.rates import Rates
from actors.policy.rules import ConfiguredRules
from actors.policy.spent import MEMORY_S, Spent
from actors.queues import Queues
from actors.serving import Lanes, Serving, Sources
from autoglm.degrade import QueueStatus
from autoglm.service import Hold, Service
from autoglm.types import Usage
from runtime.breaker import Breaker, BreakerOptions
from runtime.config import Config
from runtime.configload import load
from runtime.store.protocol import Lane, Left
from runtime.store.standin import PausedQueue

A, B = ("core", "a"), ("normal", "b")
READY = cast("Any", (SimpleNamespace(info=object()), None))


class StillClock:
    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(1000 * self.now)

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here waits")


class Desk:
    """A server's numbers, as its actors would know them."""

    def __init__(self, *settings: str, engines: tuple[Any, ...] = (READY,)) -> None:
        self.config: Config = load(settings=settings)
        self.clock = StillClock()
        self.waiting: Lanes = {}
        self.running: Lanes = {}
        self.pace = Pace()
        self.rates = Rates(self.config.tenants, self.clock.monotonic())
        self.queues = Queues(self.config.queues, "none", (), self.clock)
        self.serving = Serving(
            self.config,
            Sources(
                *(self.queues, self.rates, self.pace, engines),
                waiting=lambda: self.waiting,
                running=lambda: self.running,
            ),
            self.clock,
        )

    def queue(self, name: str) -> QueueStatus:
        return next(each for each in self.serving.queues() if each.name == name)

    def of_queue(self, name: str) -> Service:
        service = self.queue(name).service
        assert service is not None
        return service

    def of_tenant(self, name: str) -> Service:
        return next(each.service for each in self.serving.tenants() if each.name == name)

    def serve(self, lane: Lane, count: int, took: Usage, took_s: float) -> None:
        """One after the other, while more waits."""
        for seq in range(count):
            self.pace.began({seq: lane}, self.clock.now)
            self.clock.now += took_s
            self.pace.stopped([Left(seq, took)], self.clock.now, lambda _: True)


def test_shares_are_due_to_those_with_work_alone() -> None:
    desk = Desk("tenants.b.weight=3")
    desk.waiting = {A: 5, B: 7, ("normal", "c"): 1}
    assert (desk.of_queue("core").due, desk.of_queue("normal").due) == (0.6667, 0.3333)
    assert desk.of_queue("background").due == 0
    assert (desk.of_tenant("b").due, desk.of_tenant("c").due) == (0.25, 0.0833)
    assert (desk.of_queue("normal").waiting, desk.of_tenant("b").waiting) == (8, 7)


@given(
    lanes=st.sets(st.tuples(st.sampled_from(["core", "normal", "x"]), st.text("abc", max_size=2)))
)
def test_what_is_due_adds_up_to_all(lanes: set[Lane]) -> None:
    due = shares_due(lanes, ConfiguredRules(Config()))
    assert due.keys() == lanes
    assert sum(due.values()) == pytest.approx(1 if lanes else 0)


@pytest.mark.parametrize("policy", ["fifo", "priority"])
def test_where_there_are_no_shares_none_is_due(policy: str) -> None:
    desk = Desk(f"scheduler.policy={policy}")
    desk.waiting = {A: 5}
    assert desk.of_queue("core").due is None


def test_what_is_used_is_counted_in_tokens_and_fades() -> None:
    spent = Spent()
    spent.add({A: 300.0}, 0.0)
    spent.add({B: 100.0}, 0.0)
    assert spent.shares(0.0) == {A: 0.75, B: 0.25}
    spent.add({B: 200.0}, 20 * MEMORY_S)
    assert spent.shares(20 * MEMORY_S) == {B: 1.0}


def test_an_estimate_is_made_of_all_that_waits_and_the_pace_of_the_queue() -> None:
    desk = Desk()
    assert desk.of_queue("core").finishes_in_s is None
    desk.serve(A, 10, Usage(1, 10), took_s=2.0)
    assert desk.of_queue("core").finishes_in_s is None, "nothing waits"
    desk.waiting = {A: 30, B: 5}
    assert desk.of_queue("core").finishes_in_s == pytest.approx(31 * 2.0, rel=0.05)
    assert desk.of_queue("normal").finishes_in_s is None, "nothing of it was answered yet"
    assert (desk.of_queue("core").used, desk.of_tenant("a").used) == (1, 1)


def test_a_paused_queue_holds_its_tenants_and_has_no_end() -> None:
    desk = Desk()
    desk.serve(A, 3, Usage(1, 10), took_s=2.0)
    desk.waiting = {A: 3}
    desk.queues.recalled((), (PausedQueue("core", "me"),))
    hold = Hold("paused", "queue core is paused by me")
    for service in (desk.of_queue("core"), desk.of_tenant("a")):
        assert (service.held, service.finishes_in_s) == ((hold,), None)
    desk.waiting = {A: 3, ("normal", "a"): 1}
    assert desk.of_tenant("a").held == (), "something of it may run"


def test_a_queue_that_is_drained_is_closed_and_not_held() -> None:
    desk = Desk()
    desk.waiting = {A: 3}
    desk.queues.recalled((), (PausedQueue("core", "me", draining=True),))
    assert desk.queue("core").draining
    assert not desk.queue("core").paused
    assert desk.of_queue("core").held == ()
    assert desk.queues.closed().keys() == {"core"}
    desk.queues.changed({}, {"core": None})
    assert not desk.queues.closed()


def test_caps_are_named_and_do_not_hide_when_it_ends() -> None:
    desk = Desk("queues.core.max_running=2", "tenants.b.max_running=1")
    desk.serve(A, 3, Usage(1, 10), took_s=2.0)
    desk.waiting, desk.running = {A: 3, B: 1}, {A: 2, B: 1}
    (hold,) = desk.of_queue("core").held
    assert (hold.why, hold.text) == ("cap", "queues.core.max_running is 2")
    assert desk.of_queue("core").finishes_in_s is not None
    (hold,) = desk.of_tenant("b").held
    assert (hold.why, hold.text) == ("cap", "tenants.b.max_running is 1")
    (hold,) = desk.of_queue("normal").held
    assert (hold.why, hold.text) == ("tenants", "all tenants that wait in it are held: b")
    desk.serve(B, 3, Usage(1, 10), took_s=2.0)
    assert desk.of_queue("normal").finishes_in_s is not None


def test_a_rate_that_is_used_up_is_named_with_its_end() -> None:
    desk = Desk("tenants.a.tasks_per_s=1")
    desk.rates.began("a")
    assert not desk.serving.tenants(), "nothing of it waits or runs"
    desk.waiting = {A: 3}
    (hold,) = desk.of_tenant("a").held
    assert hold == Hold("rate", "tenants.a.tasks_per_s is used up", 1.0)
    desk.clock.now += 1
    assert desk.of_tenant("a").held == ()


def test_without_an_engine_everything_that_waits_is_held() -> None:
    breaker = Breaker(BreakerOptions())
    down = cast("Any", (SimpleNamespace(info=None), SimpleNamespace(breaker=breaker)))
    desk = Desk(engines=(down,))
    assert desk.of_queue("core").held == (), "nothing waits in it"
    desk.waiting = {A: 3}
    assert desk.of_queue("core").held == (Hold("loading", "no engine is ready yet"),)
    breaker.go_on(desk.clock.now, 1, 5)
    hold = Hold("breaker", "the breakers of all engines are open", 5.0)
    assert desk.of_queue("core").held == desk.of_tenant("a").held == (hold,)


def test_who_waits_too_long_closes_the_queues_below_it_for_a_while() -> None:
    desk = Desk()
    desk.queues.overflowed("normal", 3.0)
    closed = desk.queues.closed()
    assert closed.keys() == {"background"}
    assert closed["background"].retry_after == 3.0
    desk.queues.overflowed("core", 5.0)
    assert desk.queues.closed().keys() == {"normal", "background"}
    desk.queues.changed({}, {"core": PausedQueue("core", None)})
    assert desk.queues.closed().keys() == {"background"}, "what is paused closes nobody"
    desk.clock.now += 5
    assert not desk.queues.closed()
