"""The frontdoor: a bad client harms only itself, and whoever waits is told once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from actors.frontdoor import Frontdoor
from actors.messages import (
    Ask,
    Commit,
    MonitorMessage,
    Refused,
    TasksEnded,
    TextsArrived,
)
from actors.policy.pace import Pace
from actors.policy.priority import PriorityRules
from actors.queues import Queues
from autoglm import wire
from autoglm.errors import AutoGLMError
from autoglm.types import Answer, Output, Task, TaskSpec, TaskState, Usage
from model.engine import Progress
from runtime.bell import Signal
from runtime.config import Config
from runtime.mailbox import ActorDied, Mailbox
from runtime.queueconfig import with_built_in
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import upkeepprotocol as up
from runtime.supervision import describe
from tests.simulation.loop import VirtualClock, run_virtually
from tests.simulation.net import MemoryStream, Network
from tests.simulation.world import Universe

ID = "0" * 26
NESTED = b"\x83\xa4type\xa3get\xa3rid\x02\xa1x" + b"\x91" * 99_999 + b"\x01"
SPEC = TaskSpec(ID, prompt="hello")


class Person:
    """One connection, frame by frame."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        self._splitter = wire.FrameSplitter()
        self._bodies: list[bytes] = []

    async def say(self, *messages: wire.Request) -> None:
        await self.stream.send(b"".join(map(wire.encode_frame, messages)))
        await anyio.sleep(0.01)

    async def hear(self) -> wire.Reply:
        while not self._bodies:
            with anyio.fail_after(1):
                self._bodies += self._splitter.feed(await self.stream.receive())
        return wire.decode_reply(self._bodies.pop(0))


class Stage:
    """A frontdoor, with the store played by the test."""

    def __init__(self, universe: Universe, capacity: int, reader_capacity: int) -> None:
        self.clock = universe.clock
        self.network = Network(universe, 0.0001, cuts=0)
        self.mailbox: Mailbox[Any] = Mailbox(capacity)
        self.missed = Signal(self.mailbox.bell)
        self.persister: Mailbox[Commit] = Mailbox(10)
        self.reader: Mailbox[Ask] = Mailbox(reader_capacity)
        self.monitor: Mailbox[MonitorMessage] = Mailbox(10)
        self.refusal: AutoGLMError | None = None
        self.failure: BaseException | None = None
        self.frontdoor = Frontdoor(
            *(self.mailbox, self.missed, self.network.listen),
            *(self.persister, self.reader, self.monitor),
            wire.Welcome,
            lambda _: self.refusal,
            universe.ids("server"),
            Queues(with_built_in({}), "none", (), universe.clock),
            PriorityRules(Config()),
            Pace(),
            universe.clock,
        )

    async def run(self) -> None:
        try:
            await self.frontdoor.run(lambda: None)
        except Exception as error:
            self.failure = error

    async def visit(self, tenant: str | None = None) -> Person:
        person = Person(await self.network.connect("/"))
        await person.say(wire.Hello(1, tenant=tenant))
        assert isinstance(await person.hear(), wire.Welcome)
        return person

    async def stored(self, found: dict[str, Answer]) -> int:
        """Answer everything that was asked of the store. Returns how much that was."""
        asked = self.reader.drain_nowait()
        for ask in asked:
            ask.reply.send(found)
        await self.clock.sleep(0.01)
        return len(asked)

    async def tell(self, *messages: object) -> None:
        for message in messages:
            assert self.mailbox.put_nowait(message)
        await self.clock.sleep(0.01)


def play(
    scene: Callable[[Stage], Coroutine[Any, Any, None]],
    *,
    capacity: int = 100,
    reader_capacity: int = 100,
) -> None:
    universe = Universe(0)

    async def main() -> None:
        stage = Stage(universe, capacity, reader_capacity)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.run)
            await stage.clock.sleep(0.01)
            await scene(stage)
            assert stage.failure is None, describe(stage.failure)
            group.cancel_scope.cancel()

    async def in_a_process(_: VirtualClock) -> None:
        process = universe.spawn("server", main)
        await universe.done(process)
        if universe.problems:
            raise universe.problems[0]

    run_virtually(in_a_process, universe.loop)


def answer(state: TaskState, tenant: str = "default") -> Answer:
    result = Output("text", "stop", Usage()) if state is TaskState.SUCCEEDED else None
    return Answer(Task(ID, state, tenant), result)


def accepted(*, duplicate: bool = False) -> tuple[wire.Accepted, ...]:
    return (wire.Accepted(Task(ID, TaskState.PENDING), duplicate=duplicate),)


async def commit(stage: Stage, result: object) -> None:
    (message,) = stage.persister.drain_nowait()
    assert message.reply is not None
    message.reply.send(result)
    await stage.clock.sleep(0.01)


def test_a_task_is_acknowledged_only_when_the_store_says_so() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Submit(2, (SPEC,)))
        with pytest.raises(TimeoutError):
            await person.hear()
        await commit(stage, accepted())
        assert await person.hear() == wire.Submitted(2, accepted())

    play(scene)


def test_what_is_no_task_is_refused_in_its_place() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Submit(2, (TaskSpec("bad", prompt="x"), SPEC)))
        await commit(stage, accepted())
        reply = await person.hear()
        assert isinstance(reply, wire.Submitted)
        assert [each.error.code if each.error else None for each in reply.tasks] == [
            *("invalid_request", None),
        ]

    play(scene)


def test_whoever_waits_is_told_once_when_the_task_ends() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Get(2, ID, wait=True))
        assert await stage.stored({ID: answer(TaskState.RUNNING)}) == 1
        for _ in range(2):
            await stage.tell(TasksEnded((p.Ending(ID, ()),), frozenset()))
            await stage.stored({ID: answer(TaskState.SUCCEEDED)})
        assert await person.hear() == wire.AnswerReply(2, answer(TaskState.SUCCEEDED))
        assert stage.frontdoor.statistics().waiting_tasks == 0
        with pytest.raises(TimeoutError):
            await person.hear()

    play(scene)


def test_who_waits_is_looked_up_again_when_news_were_missed() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Get(2, ID, wait=True))
        await stage.stored({ID: answer(TaskState.RUNNING)})
        stage.missed.set()
        await stage.clock.sleep(0.01)
        await stage.stored({ID: answer(TaskState.DEAD)})
        assert await person.hear() == wire.AnswerReply(2, answer(TaskState.DEAD))

    play(scene)


def test_a_full_reader_is_asked_again_and_nobody_is_held_up_meanwhile() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Get(2, ID, wait=True))
        await stage.stored({ID: answer(TaskState.RUNNING)})
        await person.say(wire.Get(3, "other"))
        stage.missed.set()
        await stage.clock.sleep(1)
        await stage.stored({})
        await stage.clock.sleep(1)
        await stage.stored({ID: answer(TaskState.SUCCEEDED)})
        replies = [await person.hear(), await person.hear()]
        assert wire.AnswerReply(2, answer(TaskState.SUCCEEDED)) in replies

    play(scene, reader_capacity=1)


def test_a_refused_wait_leaves_nothing_behind() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Get(2, "some other task"))
        await person.say(wire.Get(3, ID, wait=True), wire.GetJobLines(4, "job"))
        codes = [reply.code for reply in (await person.hear(), await person.hear())]  # type: ignore[union-attr]
        assert codes == ["busy", "busy"]
        assert stage.frontdoor.statistics().waiting_tasks == 0

    play(scene, reader_capacity=1)


def test_another_tenants_task_is_unknown_even_at_the_moment_it_ends() -> None:
    async def scene(stage: Stage) -> None:
        spy = await stage.visit("spy")
        await spy.say(wire.Follow(2, ID))
        await stage.tell(TextsArrived((Progress(ID, 1, 0, "secret"),)))
        await stage.tell(TasksEnded((p.Ending(ID, ()),), frozenset()))
        theirs, all_who_wait = stage.reader.drain_nowait()
        all_who_wait.reply.send({ID: answer(TaskState.SUCCEEDED, "victim")})
        await stage.clock.sleep(0.01)
        theirs.reply.send({})
        reply = await spy.hear()
        assert isinstance(reply, wire.Error)
        assert (reply.rid, reply.code) == (2, "not_found")

    play(scene)


def test_who_waits_for_a_task_that_is_removed_as_it_ends_is_told_once() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Get(2, ID, wait=True))
        await stage.stored({ID: answer(TaskState.RUNNING)})
        await stage.tell(TasksEnded((p.Ending(ID, ()),), frozenset()))
        await stage.stored({})
        reply = await person.hear()
        assert isinstance(reply, wire.Error)
        assert (reply.rid, reply.code) == (2, "not_found")
        assert stage.frontdoor.statistics().waiting_tasks == 0

    play(scene)


def test_a_slice_of_a_job_is_cancelled_and_the_client_told_where_to_go_on() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(wire.Cancel(2, job="job", after=501))
        (asked,) = stage.persister.drain_nowait()
        assert asked.write == p.CancelTasks(None, (), "job", 501, by="root")
        assert asked.reply is not None
        asked.reply.send(p.Settled((), (), 7, 1001))
        await stage.clock.sleep(0.01)
        await stage.stored({})
        assert await person.hear() == wire.Cancelled(2, count=7, next=1001)

    play(scene)


def test_pruning_is_for_the_operator() -> None:
    async def scene(stage: Stage) -> None:
        tenant, operator = await stage.visit("somebody"), await stage.visit()
        await tenant.say(wire.Prune(2, 1000))
        reply = await tenant.hear()
        assert isinstance(reply, wire.Error)
        assert reply.code == "invalid_request"
        await operator.say(wire.Prune(2, 1000, (7, -1)))
        await commit(stage, up.Pruned(3, 2, 9, 1, (8, 9)))
        assert await operator.hear() == wire.Pruned(2, 3, 2, 9, 1, (8, 9))

    play(scene)


def test_an_interrupted_commit_is_unknown_and_safe_to_repeat() -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        for rid, result in ((2, ActorDied("persister")), (3, Refused(p.StoreError("full")))):
            await person.say(wire.Submit(rid, (SPEC,)))
            await commit(stage, result)
            reply = await person.hear()
            assert isinstance(reply, wire.Error)
            assert (reply.code, reply.retry_after is not None) == ("unavailable", True)

    play(scene)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x01\xc1",
        b"\x00\x00\x00\x16\x83\xa4type\xa3get\xa3rid\x02\xa2id\xa2\xff\xfe\x00",
        len(NESTED).to_bytes(4, "big") + NESTED,
    ],
    ids=["length", "code", "text", "nesting"],
)
def test_garbage_ends_its_own_connection_with_a_reason(garbage: bytes) -> None:
    async def scene(stage: Stage) -> None:
        good, bad = await stage.visit(), await stage.visit()
        await bad.stream.send(garbage)
        reply = await bad.hear()
        assert isinstance(reply, wire.Error)
        assert (reply.rid, reply.code) == (0, "protocol")
        with pytest.raises(anyio.EndOfStream):
            await bad.stream.receive()
        await good.say(wire.Get(2, ID))
        await stage.stored({ID: answer(TaskState.SUCCEEDED)})
        assert isinstance(await good.hear(), wire.AnswerReply)

    play(scene)


def test_garbage_from_a_client_that_does_not_read_ends_it_too() -> None:
    async def scene(stage: Stage) -> None:
        good, bad = await stage.visit(), await stage.visit()
        long = Answer(Task(ID, TaskState.SUCCEEDED), Output("x" * 50_000, "stop", Usage()))
        for rid in range(2, 8):
            await bad.say(wire.Get(rid, ID))
            await stage.stored({ID: long})
        await bad.stream.send(b"\xff" * 8)
        await stage.clock.sleep(5)
        assert stage.frontdoor.statistics().connections == 1
        await good.say(wire.Get(2, ID))
        await stage.stored({})
        assert isinstance(await good.hear(), wire.Error)

    play(scene)


def test_the_first_request_must_be_hello() -> None:
    async def scene(stage: Stage) -> None:
        person = Person(await stage.network.connect("/"))
        await person.say(wire.GetStatus(1))
        reply = await person.hear()
        assert isinstance(reply, wire.Error)
        assert "hello" in reply.message

    play(scene)


@pytest.mark.parametrize("number", [-1, 2**63, 2**64 - 1])
def test_no_number_is_more_than_the_store_can_take(number: int) -> None:
    async def scene(stage: Stage) -> None:
        person = await stage.visit()
        await person.say(
            wire.GetEvents(2, number),
            wire.ListTasks(3, tuple(TaskState) * 999, before=number, limit=number),
            wire.GetJobLines(4, "job", number),
        )
        events, tasks, lines = [ask.query for ask in stage.reader.drain_nowait()]
        assert isinstance(events, p.FetchEvents)
        assert isinstance(tasks, p.FetchTasks)
        assert isinstance(lines, jp.FetchJobLines)
        assert 0 <= events.filter.after < 2**63
        assert tasks.filter.before is not None
        assert 0 <= tasks.filter.before < 2**63
        assert len(tasks.filter.states) == len(TaskState)
        assert 0 <= lines.after < 2**63

    play(scene)
