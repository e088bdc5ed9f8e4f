"""The mailbox: a bounded queue between actors that survives the actor that reads it.

                put / put_nowait ─▶ ┌───────────────┐ drain lends ─▶ handled one by one
    reserved slot: Reply.send ────▶ │ waiting       │               │
           signal (coalesced) ────▶ └───────────────┘ ◀─ restore ───┘ after a crash

Invariants. At most `capacity` messages wait, counting slots that are reserved for replies.
`drain` only lends: a message leaves for good with `taken`, so after a crash `restore` puts those
not yet begun back at the head and drops the one that was being handled, telling its asker. The
mailbox belongs to the actor's address, not to the running instance.

Three ways in, by what may be lost: `put` waits for room and `put_nowait` says that there is none;
a reply has its room reserved when the question is asked, so answering never waits; a `Signal` has
no content and needs no room, it can't be lost and can't pile up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from runtime.bell import Bell
from runtime.blow import Blow

M = TypeVar("M")


class Reply:
    """Where the answer to one question goes: a reserved place in the asker's mailbox.

    Answered at most once; a second answer is ignored, because the asker may already have been
    told that the actor died.
    """

    __slots__ = ("_context", "_mailbox")

    def __init__(self, mailbox: Mailbox[Any], context: object) -> None:
        self._mailbox: Mailbox[Any] | None = mailbox
        self._context = context

    def send(self, answer: object) -> None:
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.put_reserved(Answered(self._context, answer))

    def drop(self) -> None:
        """Give the place back: no answer will come, and the asker need not know."""
        mailbox, self._mailbox = self._mailbox, None
        if mailbox is not None:
            mailbox.release()


class Answered(msgspec.Struct, frozen=True):
    """An answer in the asker's mailbox; `context` is what the asker left with the question."""

    context: Any
    answer: Any


class ActorDied(msgspec.Struct, frozen=True):
    """The answer to a question whose actor failed while it was being handled.

    Whether it took effect is unknown; asking again must be safe.
    """

    actor: str


class MailboxStatistics(msgspec.Struct, frozen=True):
    waiting: int
    reserved: int
    capacity: int
    processed: int


class Mailbox(Generic[M]):
    """A bounded mailbox with one reader.

    Mailboxes that share a `bell` wake the same reader, which drains them in its own order: that
    is how an actor gives one kind of message right of way.
    """

    __slots__ = (
        "_capacity",
        "_lent",
        "_processed",
        "_putters",
        "_queue",
        "_reserved",
        "_taken",
        "bell",
        "blow",
    )

    def __init__(self, capacity: int, bell: Bell | None = None) -> None:
        if capacity < 1:
            raise ValueError("a mailbox holds at least one message")
        self.bell = bell or Bell()
        self._queue: deque[M] = deque()
        self._capacity = capacity
        self._reserved = 0
        self._putters: deque[asyncio.Future[None]] = deque()
        self._lent: list[M] = []
        """Messages that the reader has drained; those before `_taken` are begun or done."""
        self._taken = self._processed = 0
        self.blow: Blow | None = None  # of which the reader is to die, in a drill

    # ── writing ──────────────────────────────────────────────────────────────────────────────

    def put_nowait(self, message: M) -> bool:
        """Whether there was room for `message`."""
        queue = self._queue
        if len(queue) + self._reserved >= self._capacity:
            return False
        queue.append(message)
        self.bell.ring()
        return True

    async def put(self, message: M) -> None:
        """Wait until there is room. Safe to cancel: then the message was not put, and if it is a
        question the place for its answer is given back.
        """
        while not self.put_nowait(message):
            turn = asyncio.get_running_loop().create_future()
            self._putters.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._wake_putters(1)
                if (reply := _reply_of(message)) is not None:
                    reply.drop()
                raise

    def reserve(self, context: object = None) -> Reply | None:
        """Room for one reply, or None when the mailbox is full."""
        if len(self._queue) + self._reserved >= self._capacity:
            return None
        self._reserved += 1
        return Reply(self, context)

    def put_reserved(self, message: Answered) -> None:
        self._reserved -= 1
        self._queue.append(cast("M", message))
        self.bell.ring()

    def release(self) -> None:
        self._reserved -= 1
        self._wake_putters(1)

    # ── reading ──────────────────────────────────────────────────────────────────────────────

    async def drain(self, limit: int | None = None) -> list[M]:
        """Lend what waits, in order; an empty list when only a signal was set."""
        if self._queue:
            await asyncio.sleep(0)  # a reader who always finds something lets the others run
            self.bell.hush()
        else:
            await self.bell.wait_rung()
        return self.drain_nowait(limit)

    def drain_nowait(self, limit: int | None = None) -> list[M]:
        """Lend up to `limit` messages. The ones lent before count as handled."""
        queue = self._queue
        self._processed += len(self._lent)
        if limit is None or len(queue) <= limit:
            lent = list(queue)
            queue.clear()
        else:
            lent = [queue.popleft() for _ in range(limit)]
        self._lent, self._taken = lent, 0
        if self._putters and lent:
            self._wake_putters(len(lent))
        if self.blow is not None and self.blow.falls(len(lent)):
            self._taken = min(1, len(lent))
            raise self.blow.error
        return lent

    def taken(self, count: int = 1) -> None:
        """The next `count` lent messages are begun: after a crash they will not come back."""
        self._taken += count

    def all_taken(self) -> None:
        """All that is lent is begun."""
        self._taken = len(self._lent)

    def done(self) -> None:
        """All that was lent has been handled."""
        self._processed += len(self._lent)
        self._lent, self._taken = [], 0

    def restore(self, actor: str) -> None:
        """After a crash: what was not begun goes back to the head, the asker of the rest is told.

        Whoever was answered before the crash is not told a second time (a reply goes out once).
        """
        lent, taken = self._lent, self._taken
        self._lent, self._taken = [], 0
        self._processed += taken
        self._queue.extendleft(reversed(lent[taken:]))
        for message in lent[:taken]:
            tell_asker(message, ActorDied(actor))
        if self._queue:
            self.bell.ring()

    def statistics(self) -> MailboxStatistics:
        return MailboxStatistics(
            len(self._queue), self._reserved, self._capacity, self._processed + self._taken
        )

    def __len__(self) -> int:
        return len(self._queue)

    def __repr__(self) -> str:
        return f"<Mailbox {len(self._queue)}+{self._reserved} of {self._capacity}>"

    def _wake_putters(self, count: int) -> None:
        putters = self._putters
        while putters and count > 0:
            turn = putters.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1


async def ask(mailbox: Mailbox[M], question: Callable[[Reply], M]) -> Any:
    """Put a question, wait for the answer and return it. Only for who has nothing else to do."""
    answers: Mailbox[Answered] = Mailbox(1)
    reply = answers.reserve()
    assert reply is not None, "a new mailbox has room"
    await mailbox.put(question(reply))
    (answered,) = await answers.drain()
    return answered.answer


def tell_asker(message: object, answer: object) -> None:
    """Answer a question with `answer`, if `message` is one that has not been answered."""
    if (reply := _reply_of(message)) is not None:
        reply.send(answer)


def _reply_of(message: object) -> Reply | None:
    reply = getattr(message, "reply", None)
    return reply if isinstance(reply, Reply) else None
