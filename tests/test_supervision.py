"""Supervisors: who is started again, when, and with whom."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from runtime.actor import Statistics
from runtime.breaker import BreakerOptions, BreakerState
from runtime.mailbox import Mailbox
from runtime.supervision import (
    ChildSpec,
    ChildState,
    Escalation,
    Excused,
    Strategy,
    Supervised,
    Supervisor,
    describe,
)
from tests.simulation.loop import VirtualClock, run_virtually

ALMOST_NEVER = BreakerOptions(consecutive_max=10**6, window_failures=10**6)


class EvenRng:
    def random(self) -> float:
        return 0.5


class Stage:
    """Children that do as they are told, and a list of what happened."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.happened: list[str] = []
        self.fail: dict[str, anyio.Event] = {}
        self.errors: dict[str, Exception] = {}

    def spec(self, name: str, breaker: BreakerOptions = ALMOST_NEVER) -> ChildSpec:
        return ChildSpec(name, lambda: _Child(self, name), breaker=breaker)

    async def break_child(self, name: str, error: Exception | None = None) -> None:
        self.errors[name] = error or ValueError(f"{name} broke")
        self.fail[name].set()
        await self.clock.sleep(0.02)

    def take(self) -> list[str]:
        happened, self.happened = self.happened, []
        return happened


class _Child:
    def __init__(self, stage: Stage, name: str) -> None:
        self._stage = stage
        self._name = name

    async def run(self, started: Callable[[], None]) -> None:
        stage, name = self._stage, self._name
        stage.fail[name] = anyio.Event()
        stage.happened.append(f"+{name}")
        try:
            started()
            await stage.fail[name].wait()
            raise stage.errors[name]
        finally:
            stage.happened.append(f"-{name}")

    def statistics(self) -> Statistics:
        return Statistics()


Scene = Callable[[Stage, Supervisor], Coroutine[Any, Any, None]]


def play(strategy: Strategy, names: str, scene: Scene, breaker: BreakerOptions) -> None:
    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock)
        specs = [stage.spec(name, breaker) for name in names]
        supervisor = Supervisor("boss", strategy, specs, clock, EvenRng())
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.run, lambda: stage.happened.append("started"))
            await clock.sleep(0.02)
            await scene(stage, supervisor)
            group.cancel_scope.cancel()

    run_virtually(main)


def test_one_for_one_restarts_only_the_one_that_failed() -> None:
    async def scene(stage: Stage, _: Supervisor) -> None:
        assert sorted(stage.take()) == ["+a", "+b", "+c", "started"]
        await stage.break_child("b")
        assert stage.take() == ["-b", "+b"]

    play(Strategy.ONE_FOR_ONE, "abc", scene, ALMOST_NEVER)


def test_rest_for_one_starts_in_order_and_restarts_those_after_it() -> None:
    async def scene(stage: Stage, _: Supervisor) -> None:
        assert stage.take() == ["+a", "+b", "+c", "started"]
        await stage.break_child("b")
        happened = stage.take()
        assert happened[0] == "-b"
        assert happened[1:] == ["-c", "+b", "+c", "started"]

    play(Strategy.REST_FOR_ONE, "abc", scene, ALMOST_NEVER)


def test_rest_for_one_leaves_those_before_it_alone() -> None:
    async def scene(stage: Stage, _: Supervisor) -> None:
        stage.take()
        await stage.break_child("c")
        assert stage.take() == ["-c", "+c", "started"]
        await stage.break_child("a")
        assert [each for each in stage.take() if each.startswith("+")] == ["+a", "+b", "+c"]

    play(Strategy.REST_FOR_ONE, "abc", scene, ALMOST_NEVER)


def test_a_tripped_breaker_holds_the_restart_and_says_for_how_long() -> None:
    async def scene(stage: Stage, supervisor: Supervisor) -> None:
        child = supervisor.children[0]
        for _ in range(4):
            await stage.break_child("a")
        assert child.state is ChildState.HELD
        wait_s = child.retry_after(stage.clock.monotonic())
        assert wait_s is not None
        assert 3.9 < wait_s < 4
        await stage.clock.sleep(wait_s + 0.01)
        seen = child.statistics()
        assert (seen.state, seen.breaker) == (ChildState.RUNNING, BreakerState.CLOSED)
        assert seen.restarts == 4
        assert seen.last_error == "ValueError: a broke"
        assert child.retry_after(stage.clock.monotonic()) is None

    play(Strategy.ONE_FOR_ONE, "a", scene, BreakerOptions(delay_first_s=8))


def test_a_child_that_can_not_be_kept_escalates_with_its_reason() -> None:
    async def main(clock: VirtualClock) -> None:
        def start() -> _Child:
            raise ValueError("no socket")

        inner = ChildSpec("inner", start, breaker=BreakerOptions(probes_max=1))
        core = Supervisor("core", Strategy.REST_FOR_ONE, [inner], clock, EvenRng())
        root = Supervisor(
            "root", Strategy.ONE_FOR_ONE, [ChildSpec("core", lambda: core)], clock, EvenRng()
        )
        with pytest.raises(Escalation, match="inner keeps failing: ValueError: no socket"):
            await root.run(lambda: None)

    run_virtually(main)


def test_a_failure_that_is_excused_restarts_at_once_and_is_not_counted() -> None:
    async def scene(stage: Stage, supervisor: Supervisor) -> None:
        child = supervisor.children[0]
        for _ in range(50):
            await stage.break_child("a", Excused("a drill"))
        assert child.restarts == 50
        assert child.breaker.state is BreakerState.CLOSED
        assert child.last_error == "Excused: a drill"

    play(Strategy.ONE_FOR_ONE, "a", scene, BreakerOptions())


def test_stable_uptime_forgives_earlier_trips() -> None:
    options = BreakerOptions(probes_max=2, stable_s=30)

    async def scene(stage: Stage, supervisor: Supervisor) -> None:
        for _ in range(20):
            for _ in range(4):
                await stage.break_child("a")
            await stage.clock.sleep(60)
        assert supervisor.children[0].state is ChildState.RUNNING

    play(Strategy.ONE_FOR_ONE, "a", scene, options)


def test_a_restart_gives_back_what_the_failed_instance_had_not_begun() -> None:
    mailbox: Mailbox[int] = Mailbox(10)
    handled: list[int] = []

    class Reader:
        async def run(self, started: Callable[[], None]) -> None:
            started()
            for message in await mailbox.drain():
                mailbox.taken()
                if message == 2:
                    raise ValueError("two")
                handled.append(message)
            mailbox.done()
            await anyio.sleep_forever()

        def statistics(self) -> Statistics:
            return Statistics()

    async def main(clock: VirtualClock) -> None:
        for message in (1, 2, 3, 4):
            mailbox.put_nowait(message)
        spec = ChildSpec("reader", Reader, (mailbox,))
        supervisor = Supervisor("boss", Strategy.ONE_FOR_ONE, [spec], clock, EvenRng())
        async with anyio.create_task_group() as group:
            group.start_soon(supervisor.run, lambda: None)
            await clock.sleep(1)
            group.cancel_scope.cancel()

    run_virtually(main)
    assert handled == [1, 3, 4]


def test_a_description_is_the_first_cause_on_one_line() -> None:
    group = ExceptionGroup("several", [ExceptionGroup("more", [ValueError("a\nb")]), KeyError()])
    assert describe(group) == "ValueError: a b"
    assert describe(KeyError()) == "KeyError"
    assert Supervised(ChildSpec("x", _never)).last_error is None


def _never() -> Any:
    raise AssertionError
