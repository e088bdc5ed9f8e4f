"""How long a client puts up with a server that is away."""

from __future__ import annotations

import math

import pytest

from autoglm.errors import EngineUnavailable, ServerBusy, ServerUnavailable
from autoglm.retry import LOOK_AGAIN_S, Patience, Retry

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


NO_ENGINE = EngineUnavailable("no engine", retry_after=20.0)


async def test_that_no_engine_can_serve_is_said_at_once_to_who_does_not_wait() -> None:
    call = Call(Patience(window_s=100))
    with pytest.raises(EngineUnavailable):
        await call.retry.pause(NO_ENGINE)
    assert call.pauses == []


async def test_who_waits_for_an_engine_waits_as_long_as_it_takes() -> None:
    call = Call(Patience(window_s=10, engine_s=math.inf, first_s=1, cap_s=2))
    for _ in range(100):
        await call.retry.pause(NO_ENGINE)
    for _ in range(3):
        await call.retry.pause(EngineUnavailable("one is being tried"))
    assert call.pauses == [LOOK_AGAIN_S] * 100 + [2, 2, 2]


async def test_what_was_waited_out_takes_nothing_from_the_patience_with_other_trouble() -> None:
    call = Call(Patience(window_s=10, busy_s=math.inf, first_s=1, cap_s=1))
    for _ in range(50):
        await call.retry.pause(ServerBusy("full"))
    for _ in range(10):
        await call.retry.pause(AWAY)
    with pytest.raises(ServerUnavailable):
        await call.retry.pause(AWAY)
