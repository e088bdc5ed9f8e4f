"""The server's end of an engine host: one engine as its batcher sees it.

            batcher ── submit, abort, release ──▶ HostedEngine ═ frames ═▶ host process
                    ◀── ended (after a signal) ──

The object is the engine's address: it stays while host processes come and go, and supervision
runs it anew for each of them. Everything that the engine was given stays here until the batcher
releases it, so a batcher that restarts finds all it needs. When a host dies, what it was working
on ends as `Lost`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Generic, TypeVar, assert_never

import anyio

from autoglm.types import ErrorInfo
from model.engine import Completion, EngineInfo, EngineLoad, Progress
from model.flight import Flight, Lost
from model.frames import (
    Abort,
    Failed,
    Finished,
    FromHost,
    Generate,
    Load,
    Loaded,
    Reading,
    Texts,
    ToHost,
    decode_from_host,
    encode_in_parts,
)
from model.pulse import Pulse
from runtime.actor import Statistics
from runtime.channel import ChannelClosed
from runtime.clock import Clock
from runtime.config import EngineConfig
from runtime.mailbox import Bell, Signal
from runtime.process import Host
from runtime.supervision import Escalation, Excused, Mishap

log = logging.getLogger("autoglm.engine")
T = TypeVar("T")

EXCUSES_MAX = 12
"""Deaths of suspects in a row that are blamed on them, without an answer in between. Enough to find
one poison among thousands; an engine that goes on dying then is not one that dies of its prompts.
"""

Launch = Callable[[], Awaitable[Host]]


class HostState(StrEnum):
    DOWN = "down"
    LOADING = "loading"
    READY = "ready"


class HostDied(Mishap):
    """The host process ended, hung or gave up; the message says what is known."""


class HostStatistics(Statistics, frozen=True):
    state: HostState
    pid: int | None
    info: EngineInfo | None
    load: EngineLoad
    flying: int
    tokens_per_s: float
    last_error: str | None


class HostedEngine(Generic[T]):
    """One engine, in whatever host process is its present one."""

    def __init__(
        self,
        name: str,
        config: EngineConfig,
        launch: Launch,
        clock: Clock,
        on_text: Callable[[Sequence[Progress]], None],
    ) -> None:
        self.name = name
        self.info: EngineInfo | None = None
        """Set while the engine is ready."""
        self.changed: Signal | None = None
        """Set by the batcher that wants to hear of every change."""
        self._config = config
        self._launch = launch
        self._clock = clock
        self._on_text = on_text
        self._state = HostState.DOWN
        self._ready = anyio.Event()
        self._host: Host | None = None
        self._flights: dict[str, Flight[T]] = {}
        self._flying = 0
        """Of these, how many have not ended."""
        self._ended: list[Flight[T]] = []
        """Of these, those that ended since the batcher last looked."""
        self._outbox: list[ToHost] = []
        self._outbox_bell = Bell()
        self._pulse = Pulse()
        self._last_error: str | None = None
        self._excuses = 0
        """Deaths with suspects on trial since it last answered anything."""

    # ── for the batcher ──────────────────────────────────────────────────────────────────────

    def submit(self, flights: Sequence[Flight[T]]) -> None:
        """Start these requests. Only while `info` is set."""
        assert self._state is HostState.READY, "submitted to an engine that is not ready"
        if not self._flying:
            self._pulse.begins(self._clock.monotonic())
        for flight in flights:
            known = self._flights.get(flight.request.id)
            assert not known or known.ended, "two attempts of one task at once"
            self._flights[flight.request.id] = flight
        self._flying += len(flights)
        self._send(Generate(tuple(flight.request for flight in flights)))

    def abort(self, ids: Sequence[str]) -> None:
        """Stop and forget these."""
        known = [flight for id in ids if (flight := self._flights.pop(id, None)) is not None]
        running = tuple(flight.request.id for flight in known if flight.ended is None)
        self._flying -= len(running)
        if running and self._state is HostState.READY:
            self._send(Abort(running))

    @property
    def free(self) -> int:
        """Slots that stand empty; 0 while the engine is not ready."""
        return max(0, self.info.slots - self._flying) if self.info else 0

    @property
    def flying(self) -> int:
        """Requests that the engine works on."""
        return self._flying

    def time_out(self, flight: Flight[T], message: str) -> None:
        """Stop this request and end it as failed; it may be tried again."""
        request = flight.request
        if flight.ended is None and request.id in self._flights:
            error = ErrorInfo("timeout", message)
            self._end(flight, Completion(request.id, request.attempt, error=error))
            self._send(Abort((request.id,)))
            self._pulse.timed_out(self._clock.monotonic())

    def flights(self) -> list[Flight[T]]:
        """All that is held here, running or ended, in the order they were submitted."""
        return list(self._flights.values())

    def take_ended(self) -> list[Flight[T]]:
        """Those that ended since the last call. They stay in `flights` until released."""
        ended, self._ended = self._ended, []
        return ended

    def release(self, flight: Flight[T]) -> None:
        """Forget an ended request: its outcome is recorded."""
        if self._flights.get(flight.request.id) is flight:
            del self._flights[flight.request.id]

    def statistics(self) -> HostStatistics:
        return HostStatistics(
            state=self._state,
            pid=self._host.pid if self._host else None,
            info=self.info,
            load=self._pulse.load,
            flying=self._flying,
            tokens_per_s=self._pulse.tokens_per_s(),
            last_error=self._last_error,
        )

    # ── for the supervisor ───────────────────────────────────────────────────────────────────

    async def run(self, started: Callable[[], None]) -> None:
        """One host process from start to death.

        Raises HostDied when it is over, Excused when it died while suspects were tried on it,
        Escalation when starting another one can't help.
        """
        self._state = HostState.LOADING
        self._ready = anyio.Event()
        self._outbox = [Load(self._config)]
        self._outbox_bell.ring()
        try:
            self._host = host = await self._launch()
            async with anyio.create_task_group() as group:
                group.start_soon(self._send_outbox, host)
                group.start_soon(self._watch, started)
                await self._receive(host)
        except* HostDied as deaths:
            self._last_error = str(deaths.exceptions[0])
            on_trial = any(each.trial and each.ended is None for each in self._flights.values())
            if not on_trial or self._excuses >= EXCUSES_MAX:
                raise HostDied(self._last_error) from None
            self._excuses += 1
            raise Excused(self._last_error, sound=self._excuses == 1) from None
        finally:
            await self._bury()

    async def _receive(self, host: Host) -> None:
        try:
            while True:
                for body in await host.channel.receive():
                    self._take(decode_from_host.decode(body))
        except ChannelClosed:
            words = host.last_words().splitlines()
            raise HostDied(f"the host process ended: {words[-1] if words else 'no word'}") from None

    def _take(self, message: FromHost) -> None:
        match message:
            case Finished(completions):
                self._pulse.heard(self._clock.monotonic())
                for completion in completions:
                    flight = self._flights.get(completion.id)
                    if flight and not flight.ended and flight.request.attempt == completion.attempt:
                        self._end(flight, completion)
                    if completion.error is None:
                        self._excuses = 0
                self._tell()
            case Texts(pieces):
                self._pulse.heard(self._clock.monotonic())
                self._on_text(pieces)
            case Reading(load):
                self._pulse.note(load, self._clock.monotonic())
            case Loaded(info):
                log.info("%s: %s is ready with %d slots", self.name, info.model, info.slots)
                self.info = info
                self._state = HostState.READY
                self._ready.set()
                self._tell()
            case Failed(reason, permanent):
                if permanent:
                    raise Escalation(reason)
                raise HostDied(reason)
            case _:
                assert_never(message)

    async def _send_outbox(self, host: Host) -> None:
        while True:
            await self._outbox_bell.wait_rung()
            outbox, self._outbox = self._outbox, []
            for message in outbox:
                try:
                    for body in encode_in_parts(message):
                        await host.channel.send(body)
                except ChannelClosed:
                    return  # the reader raises

    async def _watch(self, started: Callable[[], None]) -> None:
        """Tell the supervisor when the engine is ready, and end a host that does nothing."""
        with anyio.move_on_after(self._config.load_timeout_s):
            await self._ready.wait()
        if not self._ready.is_set():
            raise HostDied(f"not loaded within {self._config.load_timeout_s:g} s")
        started()
        limit = self._config.watchdog_s
        while True:
            await self._clock.sleep(min(1.0, limit / 4))
            idle = self._pulse.silent_s(self._clock.monotonic())
            if self._flying and idle > limit:
                raise HostDied(f"hung: requests run, but no token for {limit:g} s")

    async def _bury(self) -> None:
        host, self._host = self._host, None
        self.info = None
        self._state = HostState.DOWN
        self._pulse = Pulse()
        for flight in self._flights.values():
            if flight.ended is None:
                self._end(flight, Lost(self._last_error or "the engine was stopped"))
        self._tell()
        if host is not None:
            await host.kill()

    def _end(self, flight: Flight[T], ended: Completion | Lost) -> None:
        flight.ended = ended
        self._flying -= 1
        self._ended.append(flight)

    def _send(self, message: ToHost) -> None:
        self._outbox.append(message)
        self._outbox_bell.ring()

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed.set()
