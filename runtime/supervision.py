"""Supervisors: they start children in order, and start them again as each child's breaker allows.

    root (one_for_one)   a child that fails is restarted alone
    core (rest_for_one)  a child that fails takes along those started after it: they stand on it

A supervisor is itself a child, so trees nest. When a child's breaker is hopeless the supervisor
fails, and whoever supervises it decides; at the root that ends the process with the reason.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, TypeVar, cast

import anyio
import msgspec

from runtime.actor import Child, Statistics
from runtime.breaker import Breaker, BreakerOptions, BreakerState
from runtime.clock import Clock, Rng
from runtime.mailbox import Mailbox

log = logging.getLogger("autoglm.supervision")
E = TypeVar("E", bound=BaseException)


class Strategy(StrEnum):
    ONE_FOR_ONE = "one_for_one"
    REST_FOR_ONE = "rest_for_one"


class ChildState(StrEnum):
    STARTING = "starting"
    RUNNING = "running"
    HELD = "held"  # failed, and the breaker is open
    STOPPED = "stopped"


class Escalation(Exception):
    """A child could not be brought back; the message says which one and its last error."""


class Mishap(Exception):
    """Base of failures that are to be expected of the world, such as the death of an engine: one
    line tells all, where a bug of ours deserves a traceback.
    """


class NotStarted(Mishap):
    """A child did not say in time that it had started."""


class Excused(Mishap):
    """A failure that says nothing about the child, such as the death of an engine on which
    suspects were tried: it is restarted at once and its breaker does not count it.

    `sound`: it has done well since it failed last, so earlier failures are explained too.
    """

    def __init__(self, message: str, *, sound: bool = False) -> None:
        super().__init__(message)
        self.sound = sound


class Broken(Mishap):
    """A failure that shows a restart at once to be useless: it opens the breaker by itself."""


class ChildSpec(msgspec.Struct, frozen=True):
    """What a supervisor needs to know of one child. `start` makes a fresh instance each time."""

    name: str
    start: Callable[[], Child]
    mailboxes: tuple[Mailbox[Any], ...] = ()
    """They belong to the child's address: they outlive its instances."""
    breaker: BreakerOptions = BreakerOptions()
    start_timeout_s: float | None = None
    """It has failed when it has not said by then that it has started. None: it sees to that."""
    on_breaker: Callable[[Breaker], None] = lambda _: None
    """Told when its breaker has opened or closed, or was forgiven."""


class ChildStatistics(msgspec.Struct, frozen=True):
    """One child, seen from its supervisor."""

    name: str
    state: ChildState
    breaker: BreakerState
    restarts: int
    mailbox: int
    processed: int
    last_error: str | None


class SupervisorStatistics(Statistics, frozen=True):
    children: tuple[ChildStatistics, ...]


class Supervised:
    """One child with its history. `retry_after` lets askers fail fast while it is held."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.breaker = Breaker(spec.breaker)
        self.state = ChildState.STARTING
        self.instance: Child | None = None
        self.restarts = 0
        self.last_error: str | None = None
        self.failed_at: float | None = None
        """When its last instance had failed, in monotonic seconds."""
        self.started_at: float | None = None
        """When its last instance had started."""

    def retry_after(self, now: float) -> float | None:
        """Seconds until the child may be back; None while nothing holds it."""
        return self.breaker.wait_s(now) if self.state is ChildState.HELD else None

    def statistics(self) -> ChildStatistics:
        boxes = [mailbox.statistics() for mailbox in self.spec.mailboxes]
        return ChildStatistics(
            name=self.spec.name,
            state=self.state,
            breaker=self.breaker.state,
            restarts=self.restarts,
            mailbox=sum(box.waiting for box in boxes),
            processed=sum(box.processed for box in boxes),
            last_error=self.last_error,
        )


class Supervisor:
    """Runs its children until cancelled; raises Escalation when one can't be kept."""

    def __init__(
        self,
        name: str,
        strategy: Strategy,
        specs: Sequence[ChildSpec],
        clock: Clock,
        rng: Rng,
        *,
        replicas: bool = False,
    ) -> None:
        """`replicas`: the children do the same, so while one runs none is missed for good."""
        self.name = name
        self.children = [Supervised(spec) for spec in specs]
        self._strategy = strategy
        self._replicas = replicas
        self._clock = clock
        self._rng = rng

    async def run(self, started: Callable[[], None]) -> None:
        try:
            await self._run(started)
        except Exception as error:
            raise _find(error, Escalation) or error from None

    async def _run(self, started: Callable[[], None]) -> None:
        if self._strategy is Strategy.REST_FOR_ONE:
            await self._keep(0, started)
        async with anyio.create_task_group() as group:
            for position in range(len(self.children)):
                group.start_soon(self._keep, position, _nobody_waits)
            started()

    def statistics(self) -> SupervisorStatistics:
        return SupervisorStatistics(tuple(child.statistics() for child in self.children))

    async def _keep(self, position: int, started: Callable[[], None]) -> None:
        """Keep one child running and, where the strategy ties them, those after it."""
        child = self.children[position]
        tied = self._strategy is Strategy.REST_FOR_ONE and position + 1 < len(self.children)
        while True:
            await self._hold(child)
            async with anyio.create_task_group() as group:
                ready = anyio.Event()
                if tied:
                    group.start_soon(self._keep_rest, ready, position + 1, started)
                await self._run_once(child, ready, started if not tied else None)
                group.cancel_scope.cancel()
            if child.breaker.hopeless and not self._others_carry_on(child):
                raise Escalation(f"{child.spec.name} keeps failing: {child.last_error}")
            child.restarts += 1

    def _others_carry_on(self, child: Supervised) -> bool:
        return self._replicas and any(
            other is not child and other.state is ChildState.RUNNING for other in self.children
        )

    async def _keep_rest(
        self, ready: anyio.Event, position: int, started: Callable[[], None]
    ) -> None:
        await ready.wait()
        await self._keep(position, started)

    async def _hold(self, child: Supervised) -> None:
        now = self._clock.monotonic()
        while (delay := child.breaker.wait_s(now)) > 0:
            child.state = ChildState.HELD
            await self._clock.sleep(delay)
            now = self._clock.monotonic()
        child.breaker.try_now(now)

    async def _run_once(
        self, child: Supervised, ready: anyio.Event, started: Callable[[], None] | None
    ) -> None:
        """Run a fresh instance until it fails, and let the breaker know how it went.

        Where the breaker is half-open this is the one try: having started, in time, is success.
        """
        begun: list[float] = []

        def on_started() -> None:
            begun.append(self._clock.monotonic())
            child.started_at = begun[-1]
            child.state = ChildState.RUNNING
            if child.breaker.state is BreakerState.HALF_OPEN:
                child.breaker.succeeded()
                child.spec.on_breaker(child.breaker)
            ready.set()
            if started is not None:
                started()

        child.state = ChildState.STARTING
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._wait_started, child.spec, begun)
                child.instance = child.spec.start()
                await child.instance.run(on_started)
                group.cancel_scope.cancel()
            error: BaseException = RuntimeError("returned")
        except Exception as caught:
            if escalation := _find(caught, Escalation):
                raise escalation from None
            error = caught
        finally:
            child.state = ChildState.STOPPED
            for mailbox in child.spec.mailboxes:
                mailbox.restore(child.spec.name)
        now = child.failed_at = self._clock.monotonic()
        if begun and now - begun[0] >= child.spec.breaker.stable_s:
            child.breaker.settled()
        excused = _find(error, Excused)
        if excused is None:
            broken = _find(error, Broken) is not None
            child.breaker.failed(now, self._rng.random(), trip=broken)
            if child.breaker.state is BreakerState.OPEN:
                child.spec.on_breaker(child.breaker)
        elif excused.sound:
            child.breaker.settled()
        child.last_error = describe(error)
        told = None if _find(error, Mishap) else error
        log.warning("%s failed: %s", child.spec.name, child.last_error, exc_info=told)

    async def _wait_started(self, spec: ChildSpec, begun: Sequence[float]) -> None:
        if (limit_s := spec.start_timeout_s) is not None:
            await self._clock.sleep(limit_s)
            if not begun:
                raise NotStarted(f"it has not started within {limit_s:g} s")


def _find(error: BaseException, kind: type[E]) -> E | None:
    """The first error of this kind, in whatever group it came."""
    if isinstance(error, kind):
        return error
    if isinstance(error, BaseExceptionGroup):
        inner = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return next((found for each in inner if (found := _find(each, kind))), None)
    return None


def _nobody_waits() -> None:
    """Siblings in one_for_one don't stand on each other."""


def describe(error: BaseException) -> str:
    """The first cause of `error`, on one line."""
    cause = error
    while isinstance(cause, BaseExceptionGroup):
        cause = cast("BaseExceptionGroup[BaseException]", cause).exceptions[0]
    text = " ".join(str(cause).split())
    return f"{type(cause).__name__}: {text}" if text else type(cause).__name__
