"""The server's end of an engine host: one engine as its batcher sees it.

            batcher ── submit, abort, stop, release ──▶ HostedEngine ═ frames ═▶ host process
                    ◀── ended, kept (after a signal) ──

The object is the engine's address: it stays while host processes come and go, and supervision
runs it anew for each of them. Everything that the engine was given stays here until the batcher
releases it, so a batcher that restarts finds all it needs. When a host dies, what it was working
on ends as `Lost`; what can't have been the cause, because the host never got it or hung before,
ends as given up.

A host is ready when it has answered a probe: one that loads and can't generate is given nothing.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar, assert_never

import anyio

from autoglm.types import ErrorInfo
from model.engine import Completion, EngineInfo, Progress, blameless
from model.flight import Flight, Flights
from model.frames import (
    Abort,
    Failed,
    Finished,
    FromHost,
    Generate,
    Keep,
    Load,
    Loaded,
    Reading,
    Stop,
    Texts,
    ToHost,
    decode_from_host,
    encode_in_parts,
)
from model.hosts import HostDied, HostHung, HostState, HostStatistics, ProbeFailed
from model.vitals import PROBE, Vitals
from runtime.bell import Bell, Signal
from runtime.breaker import BreakerOptions
from runtime.channel import ChannelClosed
from runtime.clock import Clock
from runtime.config import EngineConfig
from runtime.process import Host
from runtime.supervision import Escalation, Excused

log = logging.getLogger("autoglm.engine")
T = TypeVar("T")
Launch = Callable[[], Awaitable[Host]]


class HostedEngine(Generic[T]):
    """One engine, in whatever host process is its present one."""

    def __init__(
        self,
        name: str,
        config: EngineConfig,
        launch: Launch,
        clock: Clock,
        on_text: Callable[[Sequence[Progress]], None],
        breaker: BreakerOptions,
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
        self._loaded: EngineInfo | None = None
        """Set when the host has loaded its engine, ready or not."""
        self._moved = anyio.Event()
        """Set, and made anew, when the host has come further on its way to ready."""
        self._host: Host | None = None
        self._flights: Flights[T] = Flights()
        self._outbox: deque[ToHost] = deque()
        """What the host has not got yet; the first may be on its way."""
        self._outbox_bell = Bell()
        self._vitals = Vitals(config.watchdog_s, breaker, clock)
        self._last_error: str | None = None

    # ── for the batcher ──────────────────────────────────────────────────────────────────────

    def submit(self, flights: Sequence[Flight[T]]) -> None:
        """Start these requests. Only while `info` is set."""
        assert self._state is HostState.READY, "submitted to an engine that is not ready"
        self._vitals.submitted((flight.request.id for flight in flights), self.flying)
        self._flights.add(flights)
        self._send(Generate(tuple(flight.request for flight in flights)))

    def abort(self, ids: Sequence[str]) -> None:
        """Stop and forget these."""
        running = self._flights.forget(ids)
        if running and self._state is HostState.READY:
            self._send(Abort(running))
            self._doubt()

    def stop(self, flights: Sequence[Flight[T]]) -> None:
        """Have these end for now, as given up, with what is needed to go on."""
        running = [each for each in flights if each.ended is None and not each.stopping]
        for flight in running:
            flight.stopping = True
        if running and self._state is HostState.READY:
            self._send(Stop(tuple(flight.request.id for flight in running)))

    def take_kept(self) -> list[Flight[T]]:
        """Running requests that have come further, and how far, since the last call."""
        return self._flights.take_kept()

    @property
    def free(self) -> int:
        """Slots that stand empty; 0 while the engine is not ready."""
        return max(0, self.info.slots - self.flying) if self.info else 0

    @property
    def flying(self) -> int:
        """Requests that the engine works on."""
        return self._flights.running

    def time_out(self, flight: Flight[T], message: str) -> None:
        """Stop this request and end it as failed; it may be tried again."""
        request = flight.request
        if flight.ended is None and self._flights.get(request.id) is flight:
            error = ErrorInfo("timeout", message)
            self._flights.end(flight, Completion(request.id, request.attempt, error=error))
            self._send(Abort((request.id,)))
            self._vitals.called(good=False)
            self._doubt()

    def flights(self) -> list[Flight[T]]:
        """All that is held here, running or ended, in the order they were submitted."""
        return self._flights.all()

    def take_ended(self) -> list[Flight[T]]:
        """Those that ended since the last call. They stay here until released."""
        return self._flights.take_ended()

    def release(self, flight: Flight[T]) -> None:
        """Forget an ended request: its outcome is recorded."""
        self._flights.release(flight)

    def statistics(self) -> HostStatistics:
        return HostStatistics(
            state=self._state,
            pid=self._host.pid if self._host else None,
            info=self.info,
            load=self._vitals.load,
            flying=self.flying,
            tokens_per_s=self._vitals.tokens_per_s,
            taken=self._vitals.taken,
            last_error=self._last_error,
        )

    # ── for the supervisor ───────────────────────────────────────────────────────────────────

    async def run(self, started: Callable[[], None]) -> None:
        """One host process from start to death.

        Raises HostDied when it is over, Excused when it died with suspects on trial,
        Escalation when starting another one can't help.
        """
        self._state = HostState.LOADING
        self._loaded = None
        self._vitals.reset()
        self._outbox = deque([Load(self._config)])
        self._outbox_bell.ring()
        try:
            self._host = host = await self._launch()
            async with anyio.create_task_group() as group:
                group.start_soon(self._send_outbox, host)
                group.start_soon(self._watch, started)
                await self._receive(host)
        except* HostDied as deaths:
            death = deaths.exceptions[0]
            self._last_error = str(death)
            suspected = self._end_all(hung=isinstance(death, HostHung))
            if any(flight.trial for flight in suspected) and self._vitals.may_be_excused():
                raise Excused(self._last_error, sound=self._vitals.excuses == 1) from None
            raise death from None
        finally:
            await self._bury()

    async def _receive(self, host: Host) -> None:
        try:
            while True:
                for body in await host.channel.receive():
                    self._take(decode_from_host.decode(body))
        except ChannelClosed:
            self._close()  # whoever has something to submit is not to wait for the inquest
            raise HostDied(f"the host process ended: {await host.wait_fate()}") from None

    def _take(self, message: FromHost) -> None:
        match message:
            case Finished(completions):
                for completion in completions:
                    self._take_completion(completion)
                self._tell()
            case Texts(pieces):
                self._vitals.progressed()
                self._on_text(pieces)
            case Keep(kept):
                self._vitals.progressed()
                self._flights.keep(kept)
                self._tell()
            case Reading(load):
                self._vitals.read(load)
            case Loaded(info):
                self._loaded = info
                self._move()
                self._doubt()
            case Failed(reason, permanent):
                if permanent:
                    raise Escalation(reason)
                raise HostDied(reason)
            case _:
                assert_never(message)

    def _take_completion(self, completion: Completion) -> None:
        self._vitals.completed(completion)
        if completion.attempt == PROBE.attempt:
            self._take_probe(completion)
            return
        if not self._flights.complete(completion) or blameless(completion):
            return
        if self._vitals.called(good=completion.error is None):
            self._doubt()

    def _take_probe(self, completion: Completion) -> None:
        if completion.error is not None and not completion.permanent:
            raise ProbeFailed(f"it fails its health probe: {completion.error.message}")
        if self._vitals.proven(self.flying):
            self._send(Generate((PROBE,)))
        if self._state is HostState.LOADING:
            info = self.info = self._loaded
            assert info is not None, "a probe before the engine was loaded"
            log.info("%s: %s is ready with %d slots", self.name, info.model, info.slots)
            self._state = HostState.READY
            self._move()

    def _doubt(self) -> None:
        """Have the engine prove that it lives."""
        if self._vitals.doubt(self.flying):
            self._send(Generate((PROBE,)))

    async def _send_outbox(self, host: Host) -> None:
        while True:
            await self._outbox_bell.wait_rung()
            while self._outbox:
                try:
                    for body in encode_in_parts(self._outbox[0]):
                        await host.channel.send(body)
                except ChannelClosed:
                    return  # the reader raises
                self._outbox.popleft()

    async def _watch(self, started: Callable[[], None]) -> None:
        """Tell the supervisor when the engine is ready, and end a host that does nothing."""
        load_s, limit_s = self._config.load_timeout_s, self._config.watchdog_s
        with anyio.move_on_after(load_s):
            while self._loaded is None:
                await self._moved.wait()
        if self._loaded is None:
            raise HostDied(f"not loaded within {load_s:g} s")
        with anyio.move_on_after(limit_s):
            while self._state is HostState.LOADING:
                await self._moved.wait()
        if self._state is HostState.LOADING:
            raise HostHung(f"loaded, but its health probe got no token within {limit_s:g} s")
        started()
        while True:
            await self._clock.sleep(min(1.0, limit_s / 4))
            if self._vitals.hung(self.flying):
                raise HostHung(f"hung: requests run, but no token for {limit_s:g} s")

    def _move(self) -> None:
        self._moved.set()
        self._moved = anyio.Event()
        self._tell()

    def _close(self) -> None:
        """Nothing more can be submitted."""
        self.info = None
        self._state = HostState.DOWN

    async def _bury(self) -> None:
        host, self._host = self._host, None
        self._close()
        self._end_all(hung=False)
        self._tell()
        if host is not None:
            await host.kill()

    def _end_all(self, *, hung: bool) -> list[Flight[T]]:
        """End what runs. Returns those that may have been the cause: they are `Lost`."""
        waiting = (message for message in self._outbox if isinstance(message, Generate))
        unsent = {request.id for message in waiting for request in message.requests}
        return self._flights.end_all(
            self._last_error or "the engine was stopped",
            lambda id: id in unsent or (hung and self._vitals.innocent_of_a_hang(id)),
        )

    def _send(self, message: ToHost) -> None:
        self._outbox.append(message)
        self._outbox_bell.ring()

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed.set()
