"""A circuit breaker: whether something that keeps failing may be tried now. No I/O, no clock.

    closed ──trips──▶ open ──delay over──▶ half_open ──success──▶ closed
                       ▲                       │
                       └───────failure─────────┘  (the delay doubles)

It trips on more than `consecutive_max` failures in a row, on `window_failures` within `window_s`
seconds, or when it is told to. Closed means start at once; open means hold; half-open allows
exactly one try. Times are monotonic seconds. `FailureRatio` watches what a running thing is asked:
more than `ratio_max` of the last `ratio_calls` failing is reason to look at it.
Source: M. Nygard, "Release It!", and Erlang/OTP's restart intensity.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Annotated

import msgspec

from runtime.backoff import ceiling
from runtime.configdoc import doc


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class BreakerOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to trip and how long to stay open, in counts and seconds."""

    consecutive_max: Annotated[
        int, doc("Failures in a row that are put up with; one more opens the breaker.")
    ] = 3
    window_failures: Annotated[
        int, doc("So many failures within `window_s` open it, whatever succeeded between them.")
    ] = 5
    window_s: Annotated[float, doc("Seconds over which `window_failures` counts.")] = 60.0
    ratio_max: Annotated[
        float,
        doc("Above this share of failures in the last `ratio_calls` calls, an engine is tested."),
    ] = 0.5
    ratio_calls: Annotated[int, doc("How many calls `ratio_max` looks back on.")] = 10
    delay_first_s: Annotated[
        float, doc("Seconds that it stays open at first, with full jitter; doubles each time.")
    ] = 0.5
    delay_max_s: Annotated[float, doc("Seconds that it stays open at most.")] = 30.0
    stable_s: Annotated[
        float, doc("Seconds of uptime after which earlier failures no longer count in the delay.")
    ] = 30.0
    probes_max: Annotated[
        int, doc("Failed tries in a row that are put up with; after one more it is given up.")
    ] = 8

    def __post_init__(self) -> None:
        if self.consecutive_max < 0 or self.probes_max < 0 or self.stable_s < 0:
            raise ValueError("a breaker's limits can't be negative")
        if self.window_failures < 1 or self.ratio_calls < 1:
            raise ValueError("a breaker's counts must be positive")
        if not 0 < self.ratio_max <= 1 or self.window_s <= 0:
            raise ValueError("a breaker's ratio lies in (0, 1], its window is positive")
        if not 0 < self.delay_first_s <= self.delay_max_s:
            raise ValueError("a breaker's first delay lies between 0 and its longest")


class Breaker:
    """The memory of one thing's failures."""

    def __init__(self, options: BreakerOptions) -> None:
        self.options = options
        self.state = BreakerState.CLOSED
        self.open_until = 0.0
        self._consecutive = 0
        self._failures: deque[float] = deque(maxlen=options.window_failures)
        self._trips = 0
        """Times in a row that it opened without a success between: sets the delay."""

    def wait_s(self, now: float) -> float:
        """Seconds until a try is allowed; 0 means now. Half-open: one try is under way already."""
        return max(0.0, self.open_until - now) if self.state is BreakerState.OPEN else 0.0

    def try_now(self, now: float) -> None:
        """A try begins. Only legal when `wait_s` is 0."""
        assert self.wait_s(now) <= 0, "a try while the breaker is open"
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN

    def succeeded(self) -> None:
        """A try went well."""
        self._consecutive = 0
        if self.state is BreakerState.HALF_OPEN:
            self.state = BreakerState.CLOSED
            self._failures.clear()

    def settled(self) -> None:
        """It has been up for `stable_s`: the next failure starts from the first delay again."""
        self._trips = 0
        self._consecutive = 0

    def failed(self, now: float, draw: float, *, trip: bool = False) -> None:
        """A try failed; `draw`, in [0, 1), jitters the delay if this trips it. `trip`: it does."""
        self._consecutive += 1
        self._failures.append(now)
        if self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and (trip or self._should_trip(now))
        ):
            self._open(now, draw)

    @property
    def hopeless(self) -> bool:
        """Whether `probes_max` probes in a row have failed."""
        return self._trips > self.options.probes_max

    @property
    def trips(self) -> int:
        """How often it opened since it was last stable; what a new one needs to go on from here."""
        return self._trips

    def go_on(self, now: float, trips: int, wait_s: float) -> None:
        """Go on where another one was: open for `wait_s`, at most as long as it could have been."""
        assert trips > 0, "only an open breaker is worth remembering"
        self._trips = trips
        self.open_until = now + min(max(0.0, wait_s), self.options.delay_max_s)
        self.state = BreakerState.OPEN

    def __repr__(self) -> str:
        return f"<Breaker {self.state} consecutive={self._consecutive} trips={self._trips}>"

    def _should_trip(self, now: float) -> bool:
        options = self.options
        if self._consecutive > options.consecutive_max:
            return True
        window = self._failures
        return len(window) == options.window_failures and now - window[0] <= options.window_s

    def _open(self, now: float, draw: float) -> None:
        self._trips += 1
        longest = ceiling(self._trips, self.options.delay_first_s, self.options.delay_max_s)
        # Full jitter, kept off zero so that open always means a pause.
        self.open_until = now + longest * max(draw, 0.05)
        self.state = BreakerState.OPEN


class FailureRatio:
    """The last `ratio_calls` calls of something."""

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._calls: deque[bool] = deque(maxlen=options.ratio_calls)

    def exceeded_by(self, *, good: bool) -> bool:
        """Count a call. Whether more than `ratio_max` of the last `ratio_calls` have failed."""
        calls = self._calls
        calls.append(good)
        full = len(calls) == self._options.ratio_calls
        return full and calls.count(False) > self._options.ratio_max * len(calls)

    def clear(self) -> None:
        self._calls.clear()
