"""Whether an engine is alive, as far as its server can tell. No I/O.

Tokens are the sign of life. An engine that has had to drop a request, because it was cancelled or
took too long, may be hung of it, and shows nothing once it is empty: it is in doubt until a probe,
a request of our own for one token, is answered. Whatever it is given meanwhile is innocent of a
hang. A probe is also what tells an engine that fails from requests that fail.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from autoglm.types import Sampling
from model.engine import Completion, EngineLoad, EngineRequest
from model.hosts import PromptTokens
from runtime.breaker import BreakerOptions, FailureRatio
from runtime.clock import Clock

PROBE: Final = EngineRequest(
    "health probe", 0, prompt="Hello", sampling=Sampling(max_tokens=1, temperature=0.0)
)
"""Attempts of tasks count from 1."""
EXCUSES_MAX: Final = 12
"""Deaths of suspects in a row that are blamed on them, without an answer in between. Enough to find
one poison among thousands; an engine that goes on dying then is not one that dies of its prompts.
"""
READINGS: Final = 10
"""How many `tokens_per_s` is averaged over."""


class Vitals:
    """The signs of life of one engine. A new host starts with `reset`."""

    def __init__(self, limit_s: float, breaker: BreakerOptions, clock: Clock) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._calls = FailureRatio(breaker)
        self.excuses = 0
        """Deaths with suspects on trial since it last answered anything, whichever its host."""
        self.reset()

    def reset(self) -> None:
        self.load = EngineLoad()
        self.taken = PromptTokens()
        self._rates: deque[tuple[float, int]] = deque(maxlen=READINGS)
        self._progress_at = self._clock.monotonic()
        self._probing = False
        self._again = False
        """Something was dropped after the probe went out: its answer proves nothing of that."""
        self._innocent: set[str] = set()
        self._calls.clear()

    @property
    def tokens_per_s(self) -> float:
        """Over the last readings."""
        if len(self._rates) < 2:
            return 0.0
        (began, before), (ended, after) = self._rates[0], self._rates[-1]
        return max(0.0, (after - before) / (ended - began)) if ended > began else 0.0

    def read(self, load: EngineLoad) -> None:
        # Tokens of prompts count when they are taken in, which a hung engine may do as well.
        if load.completion_tokens != self.load.completion_tokens:
            self.progressed()
        self.load = load
        self._rates.append((self._clock.monotonic(), load.completion_tokens))

    def completed(self, completion: Completion) -> None:
        """A request ended."""
        if completion.completion_tokens:
            self.progressed()
        taken, cached = completion.prompt_tokens, completion.cached_tokens
        self.taken = PromptTokens(self.taken.all + taken, self.taken.cached + cached)

    def submitted(self, ids: Iterable[str], flying: int) -> None:
        """These go to an engine in which `flying` others run."""
        if self._probing:
            self._innocent.update(ids)
        elif not flying:
            self._progress_at = self._clock.monotonic()

    def progressed(self) -> None:
        self._progress_at = self._clock.monotonic()

    def doubt(self, flying: int) -> bool:
        """Something was dropped, or too much failed. Whether a probe is to be sent now."""
        if self._probing:
            self._again = True
            return False
        self._probing = True
        if not flying:
            self._progress_at = self._clock.monotonic()
        return True

    def proven(self, flying: int) -> bool:
        """The probe was answered. Whether another one is to be sent now."""
        self._probing = False
        self._innocent.clear()
        self.progressed()
        again, self._again = self._again, False
        return again and self.doubt(flying)

    def called(self, *, good: bool) -> bool:
        """A request ended. Whether too many of the last ones failed; then it counts anew."""
        if good:
            self.excuses = 0
        if not self._calls.exceeded_by(good=good):
            return False
        self._calls.clear()
        return True

    def may_be_excused(self) -> bool:
        """It died with suspects on trial. Whether that may be their doing."""
        if self.excuses >= EXCUSES_MAX:
            return False
        self.excuses += 1
        return True

    def hung(self, flying: int) -> bool:
        """Whether something runs and nothing has come out for too long."""
        idle_s = self._clock.monotonic() - self._progress_at
        return bool(flying or self._probing) and idle_s > self._limit_s

    def innocent_of_a_hang(self, id: str) -> bool:
        return id in self._innocent
