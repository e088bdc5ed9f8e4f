"""`map` for callers that block: prompts are drawn in the caller's own thread.

    caller's thread ── prompts ──▶ Source ─▶ Mapping ── outcomes, as many as there are ──▶ caller

Drawing and taking alternate, and taking wins: an answer that is there is handed out before another
prompt is drawn. The loop is woken only when it has run out of prompts, so that most of them cost
no change of threads. What was drawn and not handed out never exceeds `in_flight`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

import anyio

from autoglm.blocking import Loop
from autoglm.mapping import Mapping, Outcome
from autoglm.prompts import Prompt


class Source(AsyncIterator[Prompt]):
    """Prompts on their way from the caller's thread, which puts, into the loop's, which draws."""

    def __init__(self) -> None:
        self._prompts: deque[Prompt] = deque()
        self._ended = False
        self._hungry = False
        """The loop waits to be woken. Said before it looks for the last time."""
        self._news = anyio.Event()

    def put(self, loop: Loop, prompt: Prompt) -> None:
        self._prompts.append(prompt)
        self._wake_up(loop)

    def end(self, loop: Loop) -> None:
        """There are no more."""
        self._ended = True
        self._wake_up(loop)

    async def __anext__(self) -> Prompt:
        while not self._prompts:
            self._news, self._hungry = anyio.Event(), True
            if not self._prompts:
                if self._ended and not self._prompts:
                    raise StopAsyncIteration
                await self._news.wait()
            self._hungry = False
        return self._prompts.popleft()

    def _wake_up(self, loop: Loop) -> None:
        if self._hungry:
            loop.soon(self._wake)

    def _wake(self) -> None:
        self._hungry = False
        self._news.set()


def outcomes(
    loop: Loop, mapping: Mapping, source: Source, prompts: Iterable[Prompt], in_flight: int
) -> Iterator[Outcome]:
    """What became of each prompt; `mapping` runs on `source` in the loop.

    Raises what drawing a prompt raises, once all that was drawn before is handed out.
    """
    drawing, out, last = iter(prompts), 0, False
    trouble: Exception | None = None
    while True:
        while not last and out < in_flight and not mapping.ready:
            try:
                prompt = next(drawing)
            except StopIteration:
                last = True
            except Exception as error:  # it is the caller's: he gets it back
                trouble, last = error, True
            else:
                out += 1
                source.put(loop, prompt)
        if last:
            source.end(loop)
        some = loop.wait(mapping.take_some)
        if not some:
            break
        out -= len(some)
        yield from some
    if trouble is not None:
        raise trouble
