"""How long a client puts up with a server that is away."""

from __future__ import annotations

import math

import pytest

from autoglm.errors import ServerBusy, ServerUnavailable
from autoglm.retry import Patience, Retry

AWAY = ServerUnavailable("away")


class Call:
    """One call's patience, on a clock that only its own pauses move."""

    def __init__(self, patience: Patience) -> None:
        self.now_s = 1000.0
        self.pauses: list[float] = []
        self.retry = Retry(patience, self._sleep, lambda: self.now_s)

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds


async def test_pauses_double_up_to_their_cap() -> None:
    call = Call(Patience(window_s=100, first_s=1, cap_s=5))
    for _ in range(5):
        await call.retry.pause(AWAY)
    assert call.pauses == [1, 2, 4, 5, 5]


async def test_the_error_is_raised_when_the_window_is_over() -> None:
    call = Call(Patience(window_s=10, first_s=4, cap_s=4))
    for _ in range(3):
        await call.retry.pause(AWAY)
    assert sum(call.pauses) == 10
    with pytest.raises(ServerUnavailable) as raised:
        await call.retry.pause(AWAY)
    assert raised.value is AWAY


async def test_without_a_window_the_first_error_is_raised() -> None:
    call = Call(Patience(window_s=0))
    with pytest.raises(ServerUnavailable):
        await call.retry.pause(AWAY)
    assert call.pauses == []


async def test_the_server_s_own_word_wins_over_the_pause() -> None:
    call = Call(Patience(window_s=10, first_s=1))
    await call.retry.pause(ServerUnavailable("away", retry_after=0.25))
    await call.retry.pause(ServerUnavailable("away", retry_after=0.0))
    assert call.pauses == [0.25, 0.0]


async def test_trouble_long_after_the_last_is_new_trouble() -> None:
    call = Call(Patience(window_s=10, first_s=1, cap_s=8))
    await call.retry.pause(AWAY)
    call.now_s += 11
    await call.retry.pause(AWAY)
    assert call.pauses == [1, 1]


async def test_a_server_that_is_full_is_waited_for_as_long_as_was_said() -> None:
    call = Call(Patience(window_s=1, busy_s=math.inf, first_s=1, cap_s=8))
    for _ in range(100):
        await call.retry.pause(ServerBusy("full", retry_after=60))
    assert sum(call.pauses) == 6000
