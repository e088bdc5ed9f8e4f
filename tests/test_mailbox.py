"""The mailbox, against a model: nothing is lost, doubled or put out of order."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.bell import Bell, Signal
from runtime.mailbox import ActorDied, Answered, Mailbox, Reply
from tests.simulation.loop import VirtualClock, run_virtually


class Question(msgspec.Struct, frozen=True):
    reply: Reply


def test_messages_come_out_in_the_order_they_were_put() -> None:
    mailbox: Mailbox[int] = Mailbox(10)
    assert all(mailbox.put_nowait(number) for number in range(5))
    assert mailbox.drain_nowait() == [0, 1, 2, 3, 4]


def test_a_full_mailbox_refuses_and_counts_reserved_places() -> None:
    mailbox: Mailbox[int] = Mailbox(2)
    reply = mailbox.reserve()
    assert reply is not None
    assert mailbox.put_nowait(1)
    assert not mailbox.put_nowait(2)
    assert mailbox.reserve() is None
    reply.drop()
    assert mailbox.put_nowait(2)
    assert repr(mailbox) == "<Mailbox 2+0 of 2>"


def test_a_mailbox_without_room_for_one_message_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Mailbox(0)


def test_an_answer_finds_its_place_in_a_mailbox_that_has_filled_up() -> None:
    mailbox: Mailbox[Any] = Mailbox(2)
    reply = mailbox.reserve("context")
    assert reply is not None
    mailbox.put_nowait("other")
    reply.send("answer")
    reply.send("second answer")
    assert mailbox.drain_nowait() == ["other", Answered("context", "answer")]
    assert mailbox.statistics().reserved == 0


def test_a_crash_drops_the_message_in_hand_and_tells_its_asker() -> None:
    asker: Mailbox[Any] = Mailbox(10)
    mailbox: Mailbox[Question] = Mailbox(10)
    questions: list[Question] = []
    for number in range(3):
        reply = asker.reserve(number)
        assert reply is not None
        questions.append(Question(reply))
        mailbox.put_nowait(questions[-1])
    mailbox.drain_nowait()
    mailbox.taken()
    questions[0].reply.send("done")
    mailbox.taken()
    mailbox.restore("the actor")
    assert asker.drain_nowait() == [Answered(0, "done"), Answered(1, ActorDied("the actor"))]
    assert mailbox.drain_nowait() == [questions[2]]


def test_statistics_count_what_was_handled() -> None:
    mailbox: Mailbox[int] = Mailbox(10)
    for number in range(4):
        mailbox.put_nowait(number)
    mailbox.drain_nowait(3)
    mailbox.taken(2)
    seen = mailbox.statistics()
    assert (seen.waiting, seen.reserved, seen.capacity, seen.processed) == (1, 0, 10, 2)
    mailbox.done()
    assert mailbox.statistics().processed == 3


def test_a_batch_taken_as_a_whole_is_dropped_as_a_whole() -> None:
    mailbox: Mailbox[int] = Mailbox(10)
    mailbox.put_nowait(1)
    mailbox.put_nowait(2)
    mailbox.drain_nowait()
    mailbox.all_taken()
    assert mailbox.statistics().processed == 2
    mailbox.restore("the actor")
    assert mailbox.statistics().processed == 2
    assert len(mailbox) == 0


async def test_a_question_that_is_not_put_gives_its_place_back() -> None:
    asker: Mailbox[Any] = Mailbox(1)
    full: Mailbox[Any] = Mailbox(1)
    full.put_nowait("something")
    reply = asker.reserve()
    assert reply is not None
    putting = asyncio.ensure_future(full.put(Question(reply)))
    await asyncio.sleep(0)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert asker.statistics().reserved == 0


async def test_a_signal_wakes_the_reader_without_a_message() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    signal = Signal(mailbox.bell)
    signal.set()
    signal.set()
    assert await mailbox.drain() == []
    assert signal.take()
    assert not signal.take()


async def test_a_reader_that_always_finds_something_still_lets_others_run() -> None:
    mailbox: Mailbox[int] = Mailbox(1)
    others_ran = False

    def other() -> None:
        nonlocal others_ran
        others_ran = True

    asyncio.get_running_loop().call_soon(other)
    for _ in range(1000):
        mailbox.put_nowait(1)
        await mailbox.drain()
    signal = Signal(mailbox.bell)
    assert others_ran
    others_ran = False
    asyncio.get_running_loop().call_soon(other)
    for _ in range(1000):
        signal.set()
        await mailbox.drain()
    assert others_ran


async def test_two_mailboxes_on_one_bell_wake_one_reader() -> None:
    bell = Bell()
    left: Mailbox[int] = Mailbox(1, bell)
    right: Mailbox[int] = Mailbox(1, bell)
    async with anyio.create_task_group() as group:
        group.start_soon(right.put, 1)
        await bell.wait_rung()
    assert (len(left), len(right)) == (0, 1)


Operation = tuple[str, int]
_OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(
            ["put", "put_nowait", "cancel_put", "drain", "cancel_drain", "take", "done", "crash"]
        ),
        st.integers(0, 5),
    ),
    max_size=60,
)


class Harness:
    """Drives a mailbox and notes what must hold of it."""

    def __init__(self, capacity: int) -> None:
        self.mailbox: Mailbox[int] = Mailbox(capacity)
        self.capacity = capacity
        self.count = 0
        self.putting: dict[int, asyncio.Task[None]] = {}
        self.entered: list[int] = []
        """Messages in the order they entered the mailbox."""
        self.lent: list[int] = []
        self.begun = 0
        self.handled: list[int] = []
        self.dropped: list[int] = []

    async def apply(self, name: str, number: int) -> None:
        await getattr(self, f"_{name}")(number)
        for message, task in list(self.putting.items()):
            if task.done():
                del self.putting[message]

    async def finish(self) -> None:
        """Read until nobody waits any more."""
        while self.putting or len(self.mailbox) or self.lent:
            await self.apply("drain", 0)
            await self.apply("done", 0)
            await asyncio.sleep(0)

    async def _put(self, _: int) -> None:
        message = self.count = self.count + 1
        self.putting[message] = asyncio.ensure_future(self.mailbox.put(message))
        await asyncio.sleep(0)

    async def _put_nowait(self, _: int) -> None:
        message = self.count = self.count + 1
        room = len(self.mailbox) < self.capacity
        assert self.mailbox.put_nowait(message) == room

    async def _cancel_put(self, number: int) -> None:
        for message in list(self.putting)[number : number + 1]:
            task = self.putting.pop(message)
            task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                self.dropped.append(message)

    async def _drain(self, number: int) -> None:
        self._settle_lent()
        if not len(self.mailbox):
            self.mailbox.done()
            return
        self.lent = await self.mailbox.drain(number or None)
        assert self.lent, "a drain of a mailbox with messages lends none"
        self.entered += self.lent

    async def _cancel_drain(self, number: int) -> None:
        self._settle_lent()
        self.mailbox.done()
        task = asyncio.ensure_future(self.mailbox.drain(number or None))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            self.lent = task.result()
            self.entered += self.lent

    async def _take(self, number: int) -> None:
        count = min(number, len(self.lent) - self.begun)
        self.mailbox.taken(count)
        self.begun += count

    async def _done(self, _: int) -> None:
        self._settle_lent()
        self.mailbox.done()

    async def _crash(self, _: int) -> None:
        self.mailbox.restore("the actor")
        back = self.lent[self.begun :]
        self.dropped += self.lent[: self.begun]
        if back:
            assert self.entered[-len(back) :] == back
            del self.entered[-len(back) :]
        self.lent, self.begun = [], 0

    def _settle_lent(self) -> None:
        self.handled += self.lent
        self.lent, self.begun = [], 0


@settings(max_examples=200, deadline=None)
@given(capacity=st.integers(1, 4), operations=_OPERATIONS)
def test_every_message_is_handled_once_or_known_to_be_dropped(
    capacity: int, operations: list[Operation]
) -> None:
    async def main(_: VirtualClock) -> None:
        harness = Harness(capacity)
        for name, number in operations:
            await harness.apply(name, number)
        await harness.finish()
        put = {*harness.handled, *harness.dropped}
        assert len(harness.handled) + len(harness.dropped) == len(put), "a message came twice"
        refused = set(range(1, harness.count + 1)) - put
        assert harness.mailbox.statistics().waiting == 0
        names = [name for name, _ in operations]
        assert len(refused) <= names.count("put_nowait"), "a message was lost"

    run_virtually(main)


@settings(max_examples=100, deadline=None)
@given(
    messages=st.lists(st.integers(), min_size=1, max_size=20),
    lent=st.integers(1, 20),
    begun=st.integers(0, 20),
    later=st.lists(st.integers(), max_size=5),
)
def test_a_crash_keeps_the_order_and_drops_exactly_what_was_begun(
    messages: list[int], lent: int, begun: int, later: list[int]
) -> None:
    mailbox: Mailbox[int] = Mailbox(100)
    for message in messages:
        mailbox.put_nowait(message)
    out = mailbox.drain_nowait(lent)
    begun = min(begun, len(out))
    mailbox.taken(begun)
    for message in later:
        mailbox.put_nowait(message)
    mailbox.restore("the actor")
    assert mailbox.drain_nowait() == messages[begun:] + later


def test_a_mailbox_and_the_answers_in_it_are_collected_together() -> None:
    class Asker:
        def __init__(self) -> None:
            self.mailbox: Mailbox[Answered] = Mailbox(1)

    asker = Asker()
    reply = asker.mailbox.reserve(asker)
    assert reply is not None
    reply.send("answer")
    asker.mailbox.drain_nowait()
    gone = weakref.ref(asker)
    del asker, reply
    gc.collect()
    assert gone() is None
