"""Supervisors: who is started again, when, and with whom."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.actor import Statistics
from runtime.breaker import BreakerOptions, BreakerState
from runtime.mailbox import Mailbox
from runtime.supervision import (
    Broken,
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


def test_an_excused_failure_of_a_sound_child_forgives_earlier_trips() -> None:
    options = BreakerOptions(probes_max=2, stable_s=10**6)

    async def scene(stage: Stage, supervisor: Supervisor) -> None:
        for _ in range(20):
            for _ in range(4):
                await stage.break_child("a")
            await stage.clock.sleep(60)
            await stage.break_child("a", Excused("a drill", sound=True))
        assert supervisor.children[0].state is ChildState.RUNNING

    play(Strategy.ONE_FOR_ONE, "a", scene, options)


def test_a_failure_that_shows_a_restart_to_be_useless_opens_the_breaker_at_once() -> None:
    async def scene(stage: Stage, supervisor: Supervisor) -> None:
        await stage.break_child("a", Broken("out of order"))
        assert supervisor.children[0].state is ChildState.HELD

    play(Strategy.ONE_FOR_ONE, "a", scene, BreakerOptions())


def test_a_probe_that_does_not_start_in_time_has_failed() -> None:
    class Sleeper:
        async def run(self, started: Callable[[], None]) -> None:
            await anyio.sleep_forever()

        def statistics(self) -> Statistics:
            return Statistics()

    async def main(clock: VirtualClock) -> None:
        options = BreakerOptions(consecutive_max=0, delay_first_s=2, delay_max_s=2, probes_max=3)
        spec = ChildSpec("sleeper", Sleeper, breaker=options, start_timeout_s=10)
        supervisor = Supervisor("boss", Strategy.ONE_FOR_ONE, [spec], clock, EvenRng())
        with pytest.raises(Escalation, match="NotStarted: it has not started within 10 s"):
            await supervisor.run(lambda: None)
        assert clock.monotonic() == pytest.approx(4 * 10 + 3 * 1, abs=0.1)

    run_virtually(main)


def test_what_one_of_several_can_not_do_the_others_carry_on_until_they_can_not_either() -> None:
    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock)
        options = BreakerOptions(consecutive_max=0, delay_first_s=1, delay_max_s=1, probes_max=1)
        specs = [stage.spec(name, options) for name in "ab"]
        boss = Supervisor("boss", Strategy.ONE_FOR_ONE, specs, clock, EvenRng(), replicas=True)
        gave_up: list[str] = []

        async def run() -> None:
            try:
                await boss.run(lambda: None)
            except Escalation as error:
                gave_up.append(str(error))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await clock.sleep(1)
            for _ in range(10):
                await stage.break_child("a")
                assert boss.children[0].state is ChildState.HELD
                await clock.sleep(0.6)
            await stage.break_child("a")
            await stage.break_child("b")
            assert not gave_up
            await clock.sleep(0.6)
            await stage.break_child("a")
            assert not gave_up
            await stage.break_child("b")
            assert gave_up == ["b keeps failing: ValueError: b broke"]

    run_virtually(main)


Life = tuple[bool, float]
"""Whether it starts, and how long it lives then."""


def planned_starts(options: BreakerOptions, lives: list[Life]) -> tuple[list[float], bool]:
    """When a child with these lives is started, by the rules in plain words, and whether its
    supervisor gives up before they are over. Delays are half of the longest.
    """
    now, row, trips, probe = 0.0, 0, 0, False
    failures: list[float] = []
    starts: list[float] = []
    for begins, life_s in lives:
        starts.append(now)
        if begins and probe:
            row, failures, probe = 0, [], False
        now += life_s
        if begins and life_s >= options.stable_s:
            row, trips = 0, 0
        row += 1
        failures.append(now)
        recent = [at for at in failures if now - at <= options.window_s]
        if probe or row > options.consecutive_max or len(recent) >= options.window_failures:
            trips += 1
            if trips > options.probes_max:
                return starts, True
            now += min(options.delay_max_s, options.delay_first_s * 2 ** (trips - 1)) / 2
            probe = True
    return starts, False


@settings(max_examples=150, deadline=None)
@given(
    options=st.builds(
        BreakerOptions,
        consecutive_max=st.integers(0, 4),
        window_failures=st.integers(1, 5),
        window_s=st.sampled_from([4.3, 64.3]),
        delay_first_s=st.sampled_from([1.0, 4.0]),
        delay_max_s=st.sampled_from([4.0, 32.0]),
        stable_s=st.sampled_from([8.0, 32.0]),
        probes_max=st.integers(0, 4),
    ),
    lives=st.lists(
        st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, 8.0, 32.0, 128.0])), max_size=25
    ),
)
def test_a_child_is_started_exactly_when_the_rules_say(
    options: BreakerOptions, lives: list[Life]
) -> None:
    starts: list[float] = []
    left = list(lives)

    class Mortal:
        def __init__(self, clock: VirtualClock) -> None:
            self._clock = clock

        async def run(self, started: Callable[[], None]) -> None:
            if not left:
                await anyio.sleep_forever()
            starts.append(self._clock.monotonic())
            begins, life_s = left.pop(0)
            if begins:
                started()
            await self._clock.sleep(life_s)
            raise ValueError("its time was up")

        def statistics(self) -> Statistics:
            return Statistics()

    async def main(clock: VirtualClock) -> bool:
        spec = ChildSpec("mortal", lambda: Mortal(clock), breaker=options)
        supervisor = Supervisor("boss", Strategy.ONE_FOR_ONE, [spec], clock, EvenRng())
        try:
            with anyio.move_on_after(100_000):
                await supervisor.run(lambda: None)
        except Escalation:
            return True
        return False

    gave_up = run_virtually(main)
    expected, gives_up = planned_starts(options, lives)
    assert (starts, gave_up) == (pytest.approx(expected, abs=0.2), gives_up)


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
