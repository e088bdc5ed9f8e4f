"""`map` for callers that block: prompts are drawn in the caller's own thread.

    caller's thread ── prompts ──▶ Source ─▶ Mapping ── outcomes, as many as there are ──▶ caller

Drawing and taking alternate, and taking wins: an answer that is there is handed out before another
prompt is drawn, so a slow source holds up nothing, and no lock is needed. What was drawn and not
handed out never exceeds `in_flight`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator

import anyio

from autoglm.blocking import Loop
from autoglm.mapping import Mapping, Outcome
from autoglm.spec import Prompt


class Source(AsyncIterator[Prompt]):
    """Prompts as they are drawn elsewhere. Used in the loop's thread alone."""

    def __init__(self) -> None:
        self._prompts: deque[Prompt] = deque()
        self._ended = False
        self._news = anyio.Event()

    def put(self, prompts: Iterable[Prompt], *, last: bool) -> None:
        self._prompts.extend(prompts)
        self._ended = last
        self._news.set()

    async def __anext__(self) -> Prompt:
        while not self._prompts:
            if self._ended:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        return self._prompts.popleft()


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
                loop.soon(functools.partial(source.put, (prompt,), last=False))
        if last:
            loop.soon(functools.partial(source.put, (), last=True))
        some = loop.wait(mapping.take_some)
        if not some:
            break
        out -= len(some)
        yield from some
    if trouble is not None:
        raise trouble
