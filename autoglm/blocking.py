"""One event loop in a thread of its own, for callers that have none, or one of their own.

What a caller waits for can be interrupted: Ctrl-C cancels it in the loop and is raised once that
is done, so that what has to be said to the server has been said.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio.from_thread import start_blocking_portal

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LEAVE_S = 5.0
"""How long an interrupted call may take to be cancelled."""
_END = object()


class Loop:
    """The thread, its event loop, and the contexts that were entered in it. Any number of threads
    may wait for it at once.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        # One that nobody closes is closed while its thread still runs: later that could not be.
        self._close = weakref.finalize(self, _leave, self._stack)
        self._portal = self._stack.enter_context(start_blocking_portal(name="autoglm"))

    def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Enter `context`; it is left by `close`. After a failure nothing more can be done here."""
        try:
            return self._stack.enter_context(self._portal.wrap_async_context_manager(context))
        except BaseException:
            with contextlib.suppress(RuntimeError):  # it may be interrupted half-way in
                self._portal.call(self._portal.stop, True)
            raise

    def close(self) -> None:
        """Leave all contexts, the last first, and end the thread. May be repeated."""
        self._close()

    def wait(self, call: Callable[[], Awaitable[R]]) -> R:
        """What `call` returns or raises in the loop. Interrupted, it is cancelled."""
        ended = threading.Event()

        async def run() -> R:
            try:
                return await call()
            finally:
                ended.set()

        future = self._portal.start_task_soon(run)
        try:
            return future.result()
        except BaseException:
            if future.cancel():
                ended.wait(LEAVE_S)
            raise

    def soon(self, call: Callable[[], object]) -> None:
        """Have `call` called in the loop, without waiting for it; not at all if it has ended."""
        with contextlib.suppress(RuntimeError):
            self._portal.start_task_soon(call)

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """The same items; whoever stops early, or is interrupted, ends the source too."""
        try:
            while (item := self.wait(functools.partial(_next, items))) is not _END:
                yield item  # pyright: ignore[reportReturnType] # the end is the only other object
        finally:
            close = getattr(items, "aclose", None)
            # Of a generator that is let go of when the loop has ended, or by the loop's own
            # thread, nothing is left to close.
            with contextlib.suppress(RuntimeError):
                if close is not None:
                    self.wait(close)


def _leave(stack: ExitStack) -> None:
    with contextlib.suppress(RuntimeError):  # let go of by the loop's own thread
        stack.close()


async def _next(items: AsyncIterator[T]) -> T | object:
    return await anext(items, _END)


def in_blocking_words(doc: str | None) -> str | None:
    """A docstring whose examples do without `await`."""
    return None if doc is None else re.sub(r"\b(?:await|async) ", "", doc)


class Face:
    """Something whose calls wait for those of `awaited` in a loop."""

    awaited: Any
    loop: Callable[[], Loop]


def blocking(
    method: Callable[Concatenate[Any, P], Awaitable[R]],
) -> Callable[Concatenate[Any, P], R]:
    """The blocking face of an async method."""

    @functools.wraps(method)
    def call(self: Face, *args: P.args, **kwargs: P.kwargs) -> R:
        loop = self.loop()
        return loop.wait(functools.partial(method, self.awaited, *args, **kwargs))

    call.__doc__ = in_blocking_words(method.__doc__)
    return call


def iterating(
    method: Callable[Concatenate[Any, P], AsyncIterator[R]],
) -> Callable[Concatenate[Any, P], Iterator[R]]:
    """The blocking face of an async iterator."""

    @functools.wraps(method)
    def call(self: Face, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
        loop = self.loop()
        yield from loop.iterate(method(self.awaited, *args, **kwargs))

    call.__doc__ = in_blocking_words(method.__doc__)
    return call
