"""Makes one text out of the chunks of several attempts.

Chunks are provisional: an attempt can break off and the next starts over, chunks can be dropped
on the way, and only the final answer counts. `Stitcher` decides, without I/O, what the reader of
a stream must be given so that joining what it got since the last reset is always a prefix of the
current attempt's text, and is the answer in the end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any, Self

from autoglm import wire
from autoglm.errors import NotFound
from autoglm.outcomes import accepted_task, result_of
from autoglm.session import AWAY, Session, unexpected


class Chunk(str):
    """A piece of an answer as it is written: a `str`, so that pieces join.

    `reset` says that what came before is void and this chunk starts the text anew.
    """

    __slots__ = ("attempt", "offset", "reset")

    attempt: int
    offset: int
    """Of its first character within the text."""
    reset: bool

    def __new__(cls, text: str, attempt: int = 0, offset: int = 0, reset: bool = False) -> Self:
        chunk = super().__new__(cls, text)
        chunk.attempt, chunk.offset, chunk.reset = attempt, offset, reset
        return chunk

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (str(self), self.attempt, self.offset, self.reset)

    @property
    def text(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return str.__str__(self)


class Stitcher:
    def __init__(self) -> None:
        self._shown: list[str] = []
        """The text given out since the last reset, in pieces."""
        self._attempt = 0
        self._checked = 0
        """How much of the shown text the current attempt has said too."""

    def feed(self, attempt: int, offset: int, text: str) -> Iterable[Chunk]:
        """What to give out when `text` arrived as the part at `offset` of attempt `attempt`."""
        if attempt < self._attempt:
            return ()
        if attempt > self._attempt:
            self._attempt, self._checked = attempt, 0
        if offset > self._checked:
            return ()  # something was dropped: the final answer will bring the rest
        shown = self._text()
        said = shown[offset : offset + len(text)]
        if not text.startswith(said):
            return self._start_over(shown[:offset] + text)
        self._checked = max(self._checked, offset + len(text))
        return self._give(text[len(said) :])

    def finish(self, attempt: int, text: str) -> Iterable[Chunk]:
        """What to give out when `text` is the answer."""
        self._attempt, self._checked = attempt, len(text)
        shown = self._text()
        if text.startswith(shown):
            return self._give(text[len(shown) :])
        return self._start_over(text)

    def _text(self) -> str:
        if len(self._shown) > 1:
            self._shown = ["".join(self._shown)]
        return self._shown[0] if self._shown else ""

    def _give(self, more: str) -> Iterable[Chunk]:
        if not more:
            return ()
        offset = len(self._text())
        self._shown.append(more)
        return (Chunk(more, self._attempt, offset),)

    def _start_over(self, text: str) -> Iterable[Chunk]:
        self._shown, self._checked = [text], len(text)
        return (Chunk(text, self._attempt, reset=True),)


async def chunks(session: Session, message: wire.Submit | wire.Follow) -> AsyncIterator[Chunk]:
    """The answer to `message`, a task submitted or followed, as it is written.

    Raises what the server refuses it with, and TaskError when it ends without an answer.
    """
    stitcher, retry, reply = Stitcher(), session.retry(), None
    while not isinstance(reply, wire.AnswerReply):
        channel = None
        try:
            channel = await session.open(message)
            while not isinstance(reply := await channel.receive(), wire.AnswerReply):
                for chunk in _pieces(stitcher, reply):
                    yield chunk
        except AWAY as error:
            await retry.pause(error)
        finally:
            if channel:
                channel.close()
    if reply.answer is None:
        raise NotFound("no such task")
    result = result_of(reply.answer)
    for chunk in stitcher.finish(result.task.attempt, result.text):
        yield chunk


def _pieces(stitcher: Stitcher, reply: wire.Reply) -> Iterable[Chunk]:
    match reply:
        case wire.Chunk():
            return stitcher.feed(reply.attempt, reply.offset, reply.text)
        case wire.Submitted():
            accepted_task(reply.tasks[0])
            return ()
        case _:
            raise unexpected(reply)
