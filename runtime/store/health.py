"""Whether the store can be written now: one memory for the one who writes and those who ask.

    sound ──blocked──▶ resting ──pause over──▶ trying ──commit──▶ sound
                          ▲                       │
                          └────── blocked ────────┘  (the pause doubles)
    any of them ──damaged──▶ closed, for as long as this process lives

A full disk or a foreign lock says nothing about us: it is waited out for as long as it takes, and
never ends the server. Damage does not pass: nothing is written after it. No I/O, no clock.
"""

from __future__ import annotations

from autoglm.errors import ServerError, ServerUnavailable
from runtime.breaker import Breaker, BreakerOptions
from runtime.store.protocol import StoreBlocked, StoreDamaged, StoreError

PAUSES = BreakerOptions(consecutive_max=0, delay_first_s=0.25, delay_max_s=2.0)
"""One failure is enough to rest; a disk that was freed is noticed within two seconds."""
_LONGEST = 1.0
"""The pause is not drawn at random: nobody else is resting with us."""
RETRY_S = 0.5
"""The least that a client is told to wait."""


def in_words(error: StoreError) -> ServerError:
    """What a client is told of `error`; `retry_after` only where another try is worth it."""
    if isinstance(error, StoreDamaged):
        return ServerError(f"nothing more is accepted: {error}")
    return ServerUnavailable(str(error), retry_after=RETRY_S)


class Health:
    def __init__(self) -> None:
        self.damage: StoreDamaged | None = None
        self.block: StoreBlocked | None = None
        """Why the last try failed; None once one has gone well."""
        self._breaker = Breaker(PAUSES)

    @property
    def trouble(self) -> str | None:
        """What is wrong, for people."""
        error = self.damage or self.block
        return str(error) if error else None

    def damaged(self, error: StoreDamaged) -> None:
        self.damage = self.damage or error

    def blocked(self, error: StoreBlocked, now: float) -> None:
        """A try to write failed at `now`, in monotonic seconds."""
        self.block = error
        self._breaker.failed(now, _LONGEST)

    def rest_s(self, now: float) -> float:
        """Seconds until the next try; 0 means now."""
        return self._breaker.wait_s(now)

    def trying(self, now: float) -> None:
        """The next try begins. Only legal when `rest_s` is 0."""
        self._breaker.try_now(now)

    def committed(self) -> None:
        """A try went well."""
        if self.block is not None:
            self.block = None
            self._breaker.succeeded()
            self._breaker.settled()

    def refusal(self, now: float) -> ServerError | None:
        """Why a client's write is refused unseen; None: it may be tried."""
        if self.damage is not None:
            return in_words(self.damage)
        if self.block is not None and (wait_s := self.rest_s(now)) > 0:
            return ServerUnavailable(str(self.block), retry_after=max(RETRY_S, wait_s))
        return None
