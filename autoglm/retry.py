"""How long one call puts up with a server that is away, and when it asks again."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import anyio
import msgspec

from autoglm.errors import AutoGLMError, EngineUnavailable, ServerBusy

LOOK_AGAIN_S = 5.0
"""Before an engine may start somebody may set its queue, or start another server."""
Sleep = Callable[[float], Awaitable[None]]


class Patience(msgspec.Struct, frozen=True):
    """Pauses double from `first_s` to `cap_s`; after `window_s` of nothing but failures it ends.

    The server's own `retry_after` wins over the pause. With `busy_s` the window is another one
    when the server says it is full: that is back-pressure, not trouble. With `engine_s` it is
    another one when no engine can serve and the queue does not wait: who asked for that is told at
    once. What is waited out however long it takes is no part of other trouble.
    """

    window_s: float = 10
    busy_s: float = 10
    engine_s: float = 0
    first_s: float = 0.02
    cap_s: float = 1


PATIENCE = Patience()


class Retry:
    """The patience of one call. Time is handed in, so that a test needs none."""

    def __init__(
        self,
        patience: Patience,
        sleep: Sleep = anyio.sleep,
        now_s: Callable[[], float] = anyio.current_time,
    ) -> None:
        self._patience = patience
        self._sleep = sleep
        self._now_s = now_s
        self._since_s: float | None = None
        """When the present trouble began."""
        self._last_s = 0.0
        self._pause_s = patience.first_s

    async def pause(self, error: AutoGLMError) -> None:
        """Wait before the next try. Raises `error` when the trouble has gone on for too long.

        A failure that comes long after the one before is new trouble.
        """
        now, patience = self._now_s(), self._patience
        window = patience.window_s
        if isinstance(error, ServerBusy):
            window = patience.busy_s
        elif isinstance(error, EngineUnavailable):
            window = patience.engine_s
        if self._since_s is None or now - self._last_s > window:
            self._since_s, self._pause_s = now, patience.first_s
        left = self._since_s + window - now
        if left <= 0:
            raise error
        pause = error.retry_after if error.retry_after is not None else self._pause_s
        if isinstance(error, EngineUnavailable):
            pause = min(pause, LOOK_AGAIN_S)
        self._pause_s = min(self._pause_s * 2, patience.cap_s)
        await self._sleep(min(pause, left))
        self._last_s = self._now_s()
        if math.isinf(window):
            self._since_s = self._last_s
