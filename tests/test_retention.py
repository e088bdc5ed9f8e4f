"""The retention: everything too old goes, one slice after the other, at start and every hour."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from actors.messages import Commit, Refused
from actors.retention import PAUSE_S, RETRY_S, ROUND_S, Retention
from autoglm.errors import ServerUnavailable
from runtime.bell import Signal
from runtime.config import Duration, RetentionConfig
from runtime.mailbox import ActorDied, Mailbox
from runtime.store.protocol import Write
from runtime.store.upkeepprotocol import DoChore, Pruned, PruneEvents, PruneTasks
from tests.simulation.loop import VirtualClock, run_virtually

BOTH = RetentionConfig(results=Duration("30d"), events=Duration("10d"))
DAY = 86_400_000
NOTHING = Pruned(0, 0, 0, 0, None)


class Stage:
    """A retention whose persister is played by the test."""

    def __init__(self, clock: VirtualClock, config: RetentionConfig, capacity: int = 4) -> None:
        self.clock = clock
        self.persister: Mailbox[Commit] = Mailbox(capacity)
        mailbox: Mailbox[Any] = Mailbox(4)
        self.chores = Signal(mailbox.bell)
        self.retention = Retention(
            *(mailbox, self.chores, self.persister, config, clock, clock.wall_ms)
        )

    async def asked(self, within_s: float = 0.1) -> Commit:
        """The one write that is asked for."""
        commits: list[Commit] = []
        with anyio.fail_after(within_s):
            while not commits:
                commits = await self.persister.drain()
        (commit,) = commits
        self.persister.taken()
        self.persister.done()
        return commit

    async def answer(self, answer: object, within_s: float = 0.1) -> Write:
        commit = await self.asked(within_s)
        assert commit.reply is not None
        commit.reply.send(answer)
        return commit.write

    async def silent(self, seconds: float) -> bool:
        await self.clock.sleep(seconds)
        return not len(self.persister)


Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def play(scene: Scene, config: RetentionConfig = BOTH, capacity: int = 4) -> None:
    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock, config, capacity)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.retention.run, lambda: None)
            await scene(stage)
            group.cancel_scope.cancel()

    run_virtually(main)


def test_a_round_does_chores_then_removes_tasks_then_events_and_comes_every_hour() -> None:
    async def scene(stage: Stage) -> None:
        for _ in range(2):
            now = stage.clock.wall_ms()
            assert await stage.answer(False, ROUND_S + 1) == DoChore()
            tasks = await stage.answer(NOTHING)
            events = await stage.answer(NOTHING)
            assert isinstance(tasks, PruneTasks)
            assert isinstance(events, PruneEvents)
            assert events.before - tasks.before == 20 * DAY
            assert 0 <= tasks.before + 30 * DAY - now <= (ROUND_S + 1) * 1000
            assert await stage.silent(ROUND_S / 2)
        assert stage.retention.statistics().rounds == 2

    play(scene)


def test_without_a_limit_nothing_is_removed() -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.answer(False) == DoChore()
        assert await stage.silent(ROUND_S / 2)

    play(scene, RetentionConfig())


def test_a_step_goes_on_where_it_stopped_one_slice_at_a_time_with_pauses() -> None:
    async def scene(stage: Stage) -> None:
        assert await stage.answer(True) == DoChore()
        began = stage.clock.monotonic()
        assert await stage.answer(False) == DoChore()
        assert stage.clock.monotonic() - began >= PAUSE_S
        first = await stage.answer(Pruned(5, 4, 15, 1, (7, 8)))
        second = await stage.answer(Pruned(2, 2, 6, 0, None))
        assert isinstance(first, PruneTasks)
        assert isinstance(second, PruneTasks)
        assert (second.before, second.after) == (first.before, (7, 8))
        await stage.asked()
        assert await stage.silent(10)
        seen = stage.retention.statistics()
        assert (seen.tasks, seen.events, seen.jobs) == (7, 21, 1)

    play(scene)


@pytest.mark.parametrize(
    "failure", [ActorDied("persister"), Refused(ServerUnavailable("the disk is full"))]
)
def test_what_was_refused_is_asked_for_again_after_a_while(failure: object) -> None:
    async def scene(stage: Stage) -> None:
        await stage.answer(failure)
        assert await stage.silent(RETRY_S * 0.9)
        assert await stage.answer(False, within_s=RETRY_S) == DoChore()

    play(scene, RetentionConfig())


def test_a_chore_is_done_at_once_even_when_one_was_being_looked_for_as_it_came() -> None:
    async def scene(stage: Stage) -> None:
        looking = await stage.asked()
        stage.chores.set()
        await stage.clock.sleep(1)
        assert looking.reply is not None
        looking.reply.send(False)
        assert await stage.answer(False) == DoChore()
        assert isinstance(await stage.answer(NOTHING), PruneTasks)

    play(scene)


def test_a_persister_that_has_no_room_is_asked_later() -> None:
    async def scene(stage: Stage) -> None:
        await stage.clock.sleep(1)
        assert [commit.write for commit in stage.persister.drain_nowait()] == ["full"]
        stage.persister.all_taken()
        stage.persister.done()
        assert await stage.answer(False) == DoChore()

    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock, RetentionConfig(), 1)
        stage.persister.put_nowait(Commit("full"))  # pyright: ignore[reportArgumentType]
        async with anyio.create_task_group() as group:
            group.start_soon(stage.retention.run, lambda: None)
            await scene(stage)
            group.cancel_scope.cancel()

    run_virtually(main)
