"""An asyncio event loop without a world outside: virtual time, and a seeded choice of what is next.

Time stands still while anything can run and then jumps to the next timer. Everything belongs to a
`Process`; the callbacks of a dead one never happen, so that a kill unwinds nothing: no `finally`,
no `except`, as with `kill -9`. A thread is refused, and there are no sockets and no signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import warnings
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator, MutableSet
from contextvars import Context, ContextVar, copy_context
from typing import Any, Generic, TypeVar, cast

import anyio
from anyio._backends import _asyncio as backend

T = TypeVar("T")


CANCELLATION_S = 0.000_5
"""anyio asks a task to end again and again, until it does. Unless that took time, a task that
first sees something through would never be allowed the time to.
"""


class Deadlock(Exception):
    """Nothing can run and no timer is set."""


class StepsExceeded(Exception):
    """More steps than a world is expected to need: probably an endless loop."""


class OutsideWorld(Exception):
    """Something tried to leave the simulation."""


class Process:
    """What is killed as one: the callbacks made while it is current are its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.steps = 0
        self.on_death: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        return f"<Process {self.name}{' dead' if self.dead else ''}>"

    def freeze(self) -> None:
        """It does nothing any more, but nobody is told."""
        self.frozen = True

    def kill(self) -> None:
        if not self.dead:
            self.dead = True
            for tell in self.on_death:
                tell()


CURRENT: ContextVar[Process | None] = ContextVar("simulated process", default=None)


class Step(asyncio.TimerHandle):
    """One callback, and the process it belongs to."""

    __slots__ = ("process",)

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[object, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None,
    ) -> None:
        # What the two constructors above would do, in a third of the time: one is made a step.
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = False
        self.process = self._context.get(CURRENT)

    def run(self) -> None:
        self._run()

    def asks_to_cancel(self) -> bool:
        return getattr(self._callback, "__name__", "") == "_deliver_cancellation"

    def label(self) -> str:
        owner: Any = getattr(self._callback, "__self__", None)
        if isinstance(owner, asyncio.Task):
            task = cast("asyncio.Task[Any]", owner)
            return getattr(task.get_coro(), "__qualname__", "?")
        return getattr(self._callback, "__qualname__", "?")


class VirtualLoop(asyncio.BaseEventLoop):
    """`disorder` is the share of steps at which any ready callback may be next, not the oldest."""

    def __init__(
        self,
        rng: random.Random | None = None,
        disorder: float = 0.0,
        steps_max: int = 1_000_000,
        on_step: Callable[[Step], None] | None = None,
    ) -> None:
        self._alive = False
        super().__init__()
        self._rng = rng or random.Random(0)
        self._disorder = disorder
        self._on_step = on_step
        self._waiting: list[Step] = []
        self._timers: list[tuple[float, int, Step]] = []
        self._timer_count = 0
        self._now = 0.0
        self._stopped = False
        self._kept: list[asyncio.Task[Any]] = []
        """Every unfinished task: were a dead one collected, its `finally` would run."""
        self._kept_max = 256
        self.steps = 0
        self.steps_max = steps_max

    # ── what asyncio calls ───────────────────────────────────────────────────────────────────

    def time(self) -> float:
        return self._now

    def is_running(self) -> bool:
        return self._alive

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Step:
        step = Step(self._now, callback, args, self, context)
        self._waiting.append(step)
        return step

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Step:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Step:
        step = Step(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (when, self._timer_count, step))
        return step

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task = super().create_task(coro, **options)
        self._kept.append(task)
        if len(self._kept) > self._kept_max:
            self._kept = [each for each in self._kept if not each.done()]
            self._kept_max = 2 * len(self._kept) + 256
        return task

    def run_forever(self) -> None:
        events._set_running_loop(self)  # pyright: ignore[reportPrivateUsage]
        self._alive = True
        try:
            while not self._stopped:
                self._run_next()
        finally:
            self._alive = self._stopped = False
            events._set_running_loop(None)  # pyright: ignore[reportPrivateUsage]

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        """Bury all tasks. Only now do the `finally` blocks of the killed run, unheard."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a killed process need not await what it began
            for task in self._kept:
                if not task.done():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]
                    coroutine = task.get_coro()
                    with contextlib.suppress(BaseException):  # they wake in a loop that has ended
                        coroutine.close()  # type: ignore[union-attr]
            self._kept.clear()
            self._waiting.clear()
            self._timers.clear()
        super().close()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        raise OutsideWorld(f"a thread in the simulation, for {func}")

    # ── steps ────────────────────────────────────────────────────────────────────────────────

    def _due(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].cancelled() or timers[0][0] <= self._now):
            step = heapq.heappop(timers)[2]
            if not step.cancelled():
                self._waiting.append(step)

    def _run_next(self) -> None:
        self._due()
        waiting = self._waiting
        if not waiting:
            if not self._timers:
                raise Deadlock(f"nothing can run at {self._now:.3f} s, after {self.steps} steps")
            self._now = self._timers[0][0]
            self._due()
            if not waiting:
                return
        place = 0
        if len(waiting) > 1 and self._disorder and self._rng.random() < self._disorder:
            place = self._rng.randrange(len(waiting))
        step = waiting.pop(place)
        process = step.process
        if step.cancelled() or (process is not None and (process.dead or process.frozen)):
            return
        self.steps += 1
        if self.steps > self.steps_max:
            raise StepsExceeded(f"{self.steps_max} steps by {self._now:.3f} s, at {step.label()}")
        if self._on_step is not None:
            self._on_step(step)
            if process is not None and process.dead:
                return
        if step.asks_to_cancel():
            self._now += CANCELLATION_S
        step.run()


class VirtualClock:
    """runtime.clock.Clock on a loop's time. The wall clock can be made to jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.wall_ms_at_start = 1_700_000_000_000

    def monotonic(self) -> float:
        return self._loop.time()

    def wall_ms(self) -> int:
        return self.wall_ms_at_start + int(self._loop.time() * 1000)

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """The wall clock is set forward or back."""
        self.wall_ms_at_start += int(seconds * 1000)


class _OrderedSet(MutableSet[T], Generic[T]):
    """A set that is walked in order of insertion."""

    def __init__(self, items: Any = ()) -> None:
        self._items: dict[T, None] = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: T) -> None:
        self._items[value] = None

    def discard(self, value: T) -> None:
        self._items.pop(value, None)

    def update(self, items: Any) -> None:
        for item in items:
            self.add(item)

    def copy(self) -> _OrderedSet[T]:
        return _OrderedSet(self._items)


def run_virtually(
    main: Callable[[VirtualClock], Coroutine[Any, Any, T]], loop: VirtualLoop | None = None
) -> T:
    """`main` on a virtual clock, from beginning to end.

    anyio keeps tasks in sets, so its order of cancellation would follow memory addresses: while
    this runs, its sets are ordered by insertion.
    """
    loop = loop or VirtualLoop()
    asyncio.set_event_loop(loop)
    backend.set = _OrderedSet  # type: ignore[attr-defined]
    try:
        return loop.run_until_complete(main(VirtualClock(loop)))
    finally:
        loop.close()
        # anyio knows tasks weakly, but what it knows of a killed one leads back to the task.
        states = cast("dict[asyncio.Task[Any], object]", backend._task_states)  # pyright: ignore
        for task in [task for task in states if task.get_loop() is loop]:
            del states[task]
        del backend.set  # type: ignore[attr-defined]
        asyncio.set_event_loop(None)
