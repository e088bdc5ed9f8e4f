"""The alarm: rings once, at the earliest time that was asked for."""

from __future__ import annotations

import anyio

from runtime.alarm import Alarm
from runtime.bell import Bell, Signal
from tests.simulation.loop import VirtualClock, run_virtually


def ringing_times(*settings: tuple[float, float]) -> list[float]:
    """When an alarm rings that is set, at the first number of each pair, to the second.

    To a hundredth of a second, because waking up takes some of the virtual time.
    """
    times: list[float] = []

    async def main(clock: VirtualClock) -> None:
        bell = Bell()
        alarm = Alarm(clock, Signal(bell))

        async def listen() -> None:
            while True:
                await bell.wait_rung()
                if alarm.rang():
                    times.append(round(clock.monotonic(), 2))

        async with anyio.create_task_group() as group:
            group.start_soon(alarm.run)
            group.start_soon(listen)
            for when, to in settings:
                await clock.sleep(when - clock.monotonic())
                alarm.no_later_than(to)
            await clock.sleep(1000)
            group.cancel_scope.cancel()

    run_virtually(main)
    return times


def test_it_rings_once_at_its_time() -> None:
    assert ringing_times((0, 5)) == [5]


def test_an_earlier_time_wins_and_a_later_one_changes_nothing() -> None:
    assert ringing_times((0, 5), (1, 3)) == [3]
    assert ringing_times((0, 5), (1, 8)) == [5]


def test_a_time_that_has_passed_rings_at_once() -> None:
    assert ringing_times((4, 1)) == [4]


def test_it_can_be_set_again_after_it_has_rung() -> None:
    assert ringing_times((0, 5), (6, 7), (7.5, 9)) == [5, 7, 9]
