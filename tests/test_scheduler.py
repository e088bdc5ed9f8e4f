"""The scheduler: demand flows backwards, and nothing is handed out before it is claimed."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from actors import scheduler as scheduling
from actors.messages import (
    Ask,
    Commit,
    Drain,
    Refused,
    TasksAssigned,
    TasksMoved,
    WantTasks,
)
from actors.policy.agenda import Agenda
from actors.policy.pace import Pace
from actors.policy.rules import ConfiguredRules
from actors.scheduler import Scheduler
from runtime.bell import Signal
from runtime.config import Config
from runtime.mailbox import Mailbox
from runtime.store.protocol import ClaimedTask, ClaimTasks, Key, StoreError
from runtime.store.scheduleprotocol import FetchSchedule, Found, Schedule
from tests.simulation.loop import VirtualClock, run_virtually

LANE = ("normal", "default")


class Stage:
    """A scheduler with everybody around it played by the test."""

    def __init__(self, clock: VirtualClock, batcher_capacity: int, reader_capacity: int) -> None:
        self.clock = clock
        self.mailbox: Mailbox[Any] = Mailbox(scheduling.CAPACITY)
        self.missed = Signal(self.mailbox.bell)
        self.persister: Mailbox[Commit] = Mailbox(100)
        self.reader: Mailbox[Ask] = Mailbox(reader_capacity)
        self.batcher: Mailbox[Any] = Mailbox(batcher_capacity)
        batchers = {"b": self.batcher, "other": Mailbox[Any](batcher_capacity)}
        self.scheduler = Scheduler(
            *(self.mailbox, self.missed, self.persister, self.reader, batchers),
            *(Agenda("mlfq", ConfiguredRules(Config())), clock, Pace()),
        )

    def room(self, batcher: str) -> int:
        """What it is known to have room for."""
        return self.scheduler.statistics().demand[batcher]

    async def tell(self, *messages: object) -> None:
        for message in messages:
            assert self.mailbox.put_nowait(message)
        await self.clock.sleep(0.001)

    async def answer_reads(self, *keys: Key) -> None:
        """What is in the store: these tasks wait, nothing runs."""
        await self.claims()
        while asks := self.reader.drain_nowait():
            for ask in asks:
                if isinstance(ask.query, FetchSchedule):
                    ask.reply.send(Schedule({LANE: keys[0]} if keys else {}, {}))
                else:
                    ask.reply.send(Found((keys,), {}))
            await self.clock.sleep(0.001)

    async def claims(self) -> list[tuple[int, ...]]:
        """What was claimed since the last call; each claim is granted."""
        claimed: list[tuple[int, ...]] = []
        for commit in self.persister.drain_nowait():
            assert isinstance(commit.write, ClaimTasks)
            assert commit.reply is not None
            if commit.write.seqs:
                claimed.append(commit.write.seqs)
            commit.reply.send(tuple(map(task, commit.write.seqs)))
        await self.clock.sleep(0.001)
        return claimed

    def assigned(self) -> list[tuple[int, list[int]]]:
        return [(each.term, [task.seq for task in each.tasks]) for each in self._assignments()]

    def _assignments(self) -> list[TasksAssigned]:
        return self.batcher.drain_nowait()


def task(seq: int) -> ClaimedTask:
    return ClaimedTask(seq, str(seq), 1, 0, 0, 5, 0, stream=False)


def keys(*seqs: int) -> tuple[Key, ...]:
    return tuple((seq, seq) for seq in seqs)


def moved(*seqs: int) -> TasksMoved:
    return TasksMoved({LANE: keys(*seqs)})


def play(
    scene: Callable[[Stage], Coroutine[Any, Any, None]],
    *,
    batcher_capacity: int = 10,
    reader_capacity: int = 10,
) -> None:
    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock, batcher_capacity, reader_capacity)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.scheduler.run, lambda: None)
            await clock.sleep(0.001)
            await scene(stage)
            group.cancel_scope.cancel()

    run_virtually(main)


def test_it_claims_the_most_urgent_and_no_more_than_is_wanted() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads(*keys(3, 5, 9))
        assert await stage.claims() == []
        await stage.tell(WantTasks("b", 1, 2))
        assert await stage.claims() == [(3, 5)]
        assert stage.assigned() == [(1, [3, 5])]

    play(scene)


def test_what_becomes_ready_goes_to_who_waits_for_it() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads()
        await stage.tell(WantTasks("b", 1, 2))
        await stage.tell(moved(7))
        assert await stage.claims() == [(7,)]
        assert stage.scheduler.statistics().demand == {"b": 1, "other": 0}

    play(scene)


def test_batchers_with_equal_room_take_turns() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads()
        served: list[str] = []
        for number in range(1, 5):
            await stage.tell(WantTasks("b", 1, 9 - stage.room("b")))
            await stage.tell(WantTasks("other", 1, 9 - stage.room("other")), moved(number))
            (commit,) = stage.persister.drain_nowait()
            assert isinstance(commit.write, ClaimTasks)
            served.append(commit.write.owner)
        assert served == ["b", "other", "b", "other"]

    play(scene)


def test_what_another_had_claimed_is_claimed_from_the_rest() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads(*keys(1, 2, 3))
        await stage.tell(WantTasks("b", 1, 2))
        (commit,) = stage.persister.drain_nowait()
        assert commit.reply is not None
        commit.reply.send((task(1),))
        await stage.clock.sleep(0.001)
        assert await stage.claims() == [(3,)]

    play(scene)


def test_the_demand_of_an_earlier_instance_is_void() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads()
        await stage.tell(WantTasks("b", 1, 5), WantTasks("b", 2, 1))
        await stage.tell(moved(1, 2, 3))
        assert await stage.claims() == [(1,)]
        assert stage.assigned() == [(2, [1])]

    play(scene)


def test_beyond_the_room_there_is_only_what_is_new_and_urgent_is_claimed() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads(*keys(5))
        await stage.tell(WantTasks("b", 1, 1, urgent=2))
        assert await stage.claims() == [(5,)]
        await stage.tell(moved(6))
        assert await stage.claims() == []
        urgent = {("normal", "default"): [(-2, 7), (-1, 8), (0, 9)]}
        await stage.tell(TasksMoved(urgent, urgent=[7, 8, 9]))
        assert await stage.claims() == [(7, 8)]
        await stage.tell(WantTasks("b", 1, 0, urgent=2))
        assert await stage.claims() == [(9,)]
        assert stage.scheduler.statistics().demand == {"b": 0, "other": 0}

    play(scene)


def test_a_batcher_without_room_gets_its_tasks_later() -> None:
    async def scene(stage: Stage) -> None:
        stage.batcher.put_nowait("something else")
        await stage.answer_reads(*keys(1))
        await stage.tell(WantTasks("b", 1, 1))
        await stage.claims()
        assert stage.batcher.drain_nowait() == ["something else"]
        await stage.clock.sleep(1)
        assert stage.assigned() == [(1, [1])]

    play(scene, batcher_capacity=1)


def test_a_full_reader_is_asked_again_and_nobody_is_held_up_meanwhile() -> None:
    async def scene(stage: Stage) -> None:
        await stage.claims()
        first = stage.reader.drain_nowait()
        stage.reader.put_nowait(first[0])
        stage.missed.set()
        await stage.clock.sleep(1)
        await stage.claims()
        await stage.clock.sleep(1)
        stage.reader.drain_nowait()
        await stage.clock.sleep(1)
        await stage.answer_reads(*keys(4))
        await stage.tell(WantTasks("b", 1, 1))
        assert await stage.claims() == [(4,)]

    play(scene, reader_capacity=1)


def test_missed_news_make_it_read_the_backlog_anew() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads(*keys(1))
        stage.missed.set()
        await stage.clock.sleep(0.001)
        await stage.answer_reads(*keys(2))
        await stage.tell(WantTasks("b", 1, 9))
        assert await stage.claims() == [(2,)]

    play(scene)


def test_a_refused_claim_is_made_again_from_the_store() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads(*keys(1))
        await stage.tell(WantTasks("b", 1, 1))
        (commit,) = stage.persister.drain_nowait()
        assert commit.reply is not None
        commit.reply.send(Refused(StoreError("full")))
        await stage.clock.sleep(0.001)
        await stage.answer_reads(*keys(1))
        assert await stage.claims() == [(1,)]

    play(scene)


def test_a_server_that_ends_begins_nothing_more() -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer_reads(*keys(1))
        await stage.tell(Drain(), WantTasks("b", 1, 1))
        assert await stage.claims() == []

    play(scene)
