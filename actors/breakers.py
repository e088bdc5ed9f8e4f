"""What the server knows of its engines' breakers beyond its own life.

An engine that kept failing is not hammered because its server was restarted: each opening is
written through the persister, and a new server's breaker goes on from there. The time that is
stored is wall time, which may jump, so no breaker stays open longer than it could have been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from actors.messages import Commit
from runtime.breaker import Breaker, BreakerState
from runtime.clock import Clock
from runtime.config import EngineConfig
from runtime.mailbox import Mailbox
from runtime.store.protocol import Store
from runtime.store.upkeepprotocol import FetchBreakers, KeptBreaker, RememberBreaker
from runtime.supervision import Supervised


class BreakerMemory:
    """Another kind of engine, or another model, starts afresh."""

    def __init__(
        self,
        engine: EngineConfig,
        persister: Mailbox[Commit],
        clock: Clock,
        now_ms: Callable[[], int],
    ) -> None:
        self._what = engine.what
        self._persister = persister
        self._clock = clock
        self._now_ms = now_ms

    async def recall(self, store: Store, engines: Sequence[Supervised]) -> None:
        """Let breakers that were open go on. Raises StoreError."""
        kept: tuple[KeptBreaker, ...] = await store.query(FetchBreakers())
        known = {each.engine: each for each in kept if each.what == self._what}
        for child in engines:
            if (each := known.get(child.spec.name)) is not None:
                wait_s = (each.open_until - self._now_ms()) / 1000
                child.breaker.go_on(self._clock.monotonic(), each.trips, wait_s)

    def note(self, engine: str, breaker: Breaker) -> None:
        """A breaker has opened or closed. Never waits: if there is no room for it, the next server
        starts the engine once too early, or once later than it could.
        """
        trips = breaker.trips if breaker.state is BreakerState.OPEN else 0
        wait_ms = int(breaker.wait_s(self._clock.monotonic()) * 1000)
        kept = KeptBreaker(engine, self._what, trips, self._now_ms() + wait_ms)
        self._persister.put_nowait(Commit(RememberBreaker(kept)))
