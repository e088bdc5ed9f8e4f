"""The queues there are: what the configuration says of them, and what was set since.

Shared by the frontdoor, which checks names and takes settings, the persister, which equips what it
is about to commit with what stands in for the engines, and the monitor. What was set is kept in
the store; the persister tells of it after the commit, and reads all of it whenever it starts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from actors.policy.degrade import outage, stand_ins
from autoglm import wire
from autoglm.degrade import QueueStatus
from autoglm.errors import InvalidRequest
from runtime.clock import Clock
from runtime.queueconfig import DEFAULT_TEXT_CHARS_MAX, QueueConfig, check_known, lower
from runtime.store.jobprotocol import InsertLines
from runtime.store.limits import Closed
from runtime.store.overflow import Overflow
from runtime.store.protocol import InsertTasks, Write
from runtime.store.queueprotocol import BeginServing, SetQueue
from runtime.store.standin import KeptQueue, PausedQueue
from runtime.supervision import Supervised

log = logging.getLogger("autoglm.queues")
DRAINED_RETRY_S = 5.0
"""Nobody knows when somebody resumes a queue."""


class Queues:
    def __init__(
        self,
        configured: Mapping[str, QueueConfig],
        engine: str,
        engines: Sequence[Supervised],
        clock: Clock,
    ) -> None:
        """`engine`: the kind and model that results are of."""
        self._configured = configured
        self._cached = tuple(name for name, each in configured.items() if each.degrade == "cached")
        self._engine = engine
        self._engines = engines
        self._clock = clock
        self._live: dict[str, KeptQueue] = {}
        self._paused: dict[str, PausedQueue] = {}
        self._overflows: dict[str, float] = {}
        """Queues for which others are refused, and until when (monotonic seconds)."""

    @property
    def names(self) -> Collection[str]:
        return self._configured.keys()

    def statuses(self) -> tuple[QueueStatus, ...]:
        return tuple(map(self.status, self._configured))

    def status(self, name: str) -> QueueStatus:
        configured, live = self._configured[name], self._live.get(name)
        paused = self._paused.get(name)
        stopped = (self.paused(name), None if paused is None else paused.by)
        draining = paused is not None and paused.draining
        if live is None:
            return QueueStatus(
                name, configured.degrade, "config", configured.default_text, *stopped, draining
            )
        text = configured.default_text if live.default_text is None else live.default_text
        return QueueStatus(name, live.degrade, "live", text, *stopped, draining)

    def paused(self, name: str) -> bool:
        """Whether nothing of the queue is begun."""
        paused = self._paused.get(name)
        return paused is not None and not paused.draining

    def closed(self) -> dict[str, Closed]:
        """The queues that take nothing in at this moment, and why."""
        now = self._clock.monotonic()
        self._overflows = {name: at for name, at in self._overflows.items() if at > now}
        found: dict[str, Closed] = {}
        for over, until in self._overflows.items():
            if self.paused(over):
                continue  # whatever the others take in, nothing of it would run
            for name in lower(over, self._configured):
                why = (
                    f"tasks of queue {over!r} wait too long: {name!r}, which weighs less,"
                    " takes nothing in until they don't"
                )
                found[name] = Closed(why, until - now)
        for name, paused in self._paused.items():
            if paused.draining:
                why = f"queue {name!r} is being drained: it takes nothing in until it is resumed"
                found[name] = Closed(why, DRAINED_RETRY_S)
        return found

    # ── writes ───────────────────────────────────────────────────────────────────────────────

    def begin(self) -> BeginServing:
        overflow = tuple(
            Overflow(name, queue.max_wait.ms, queue.overflow)
            for name, queue in self._configured.items()
            if queue.max_wait is not None and queue.overflow != "wait"
        )
        return BeginServing(self._engine, self._cached, overflow)

    def setting(self, request: wire.SetQueue, by: str | None) -> SetQueue:
        """What the request is to the store. Raises InvalidRequest."""
        name, text = request.name, request.default_text
        check_known(name, self.names)
        if request.reset:
            if request.degrade is not None or text is not None:
                raise InvalidRequest("reset goes back to the configuration: give nothing else")
            return SetQueue(name, None, None, self._cached, by)
        if request.degrade is None and text is None:
            raise InvalidRequest("say what to set: degrade, default_text or reset")
        if text is not None and len(text) > DEFAULT_TEXT_CHARS_MAX:
            raise InvalidRequest(f"default_text: up to {DEFAULT_TEXT_CHARS_MAX} characters")
        now = self.status(name)
        degrade = request.degrade or now.degrade
        if degrade == "default" and text is None and now.default_text is None:
            raise InvalidRequest(f"queue {name}: degrade default needs a default_text")
        return SetQueue(name, degrade, text, self._cached, by)

    def equip(self, writes: list[Write]) -> list[Write]:
        """The writes, with what stands in for the engines if none can serve at this moment."""
        breakers = [child.breaker for child in self._engines]
        out = outage(breakers, self._clock.monotonic())
        if out is None or not (standins := stand_ins(self.statuses(), out)):
            return writes
        return [
            msgspec.structs.replace(write, standins=standins)
            if isinstance(write, InsertTasks | InsertLines)
            else write
            for write in writes
        ]

    # ── news from the store ──────────────────────────────────────────────────────────────────

    def recalled(self, kept: Iterable[KeptQueue], paused: Iterable[PausedQueue] = ()) -> None:
        """All that is set."""
        self._live = {each.queue: each for each in kept}
        self._paused = {each.queue: each for each in paused}

    def changed(
        self,
        kept: Mapping[str, KeptQueue | None],
        paused: Mapping[str, PausedQueue | None] | None = None,
    ) -> None:
        """What a commit set, and what it took back."""
        for name, each in kept.items():
            if each is None:
                self._live.pop(name, None)
            else:
                self._live[name] = each
        for name, each in (paused or {}).items():
            if each is None:
                self._paused.pop(name, None)
            else:
                self._paused[name] = each

    def overflowed(self, name: str, lasts_s: float) -> None:
        """Tasks of a queue wait too long, and those below it are to be refused for so long."""
        if name in self._configured:
            self._overflows[name] = self._clock.monotonic() + lasts_s

    def __repr__(self) -> str:
        return f"<Queues {', '.join(self._configured)}; set: {', '.join(self._live) or 'none'}>"
