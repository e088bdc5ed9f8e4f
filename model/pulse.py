"""What is heard of an engine: how fast it is, and for how long it has been silent. No clock."""

from __future__ import annotations

from collections import deque

from model.engine import EngineLoad

_RATE_WINDOW = 10  # readings that tokens_per_s is averaged over


class Pulse:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self.load = EngineLoad()
        self._rates: deque[tuple[float, int]] = deque(maxlen=_RATE_WINDOW)
        self._heard_at = 0.0
        self._unheard = (0.0, 0.0)
        """When it had last been heard of as a request timed out, and the silence until then."""

    def heard(self, now: float) -> None:
        """The engine did something."""
        self._heard_at = now

    def note(self, load: EngineLoad, now: float) -> None:
        if load.tokens != self.load.tokens:
            self.heard(now)
        self.load = load
        self._rates.append((now, load.completion_tokens))

    def begins(self, now: float) -> None:
        """An idle engine gets work. If all it had before timed out, its silence goes on."""
        heard_at, silent_s = self._unheard
        self._heard_at = now - (silent_s if heard_at == self._heard_at else 0.0)

    def timed_out(self, now: float) -> None:
        """A request was not answered in time."""
        self._unheard = (self._heard_at, self.silent_s(now))

    def silent_s(self, now: float) -> float:
        """How long nothing was heard while there was work."""
        return now - self._heard_at

    def tokens_per_s(self) -> float:
        if len(self._rates) < 2:
            return 0.0
        (began, before), (ended, after) = self._rates[0], self._rates[-1]
        return max(0.0, (after - before) / (ended - began)) if ended > began else 0.0
