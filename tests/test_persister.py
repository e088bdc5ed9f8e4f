"""The persister: what was waiting is one transaction, and nothing is told before its commit."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.messages import Commit, Refused, TasksEnded, TasksMoved, TasksStopped
from actors.persister import Outlets, Persister
from actors.policy.rates import Rates
from actors.queues import Queues
from actors.quotas import Quotas
from autoglm.errors import NotFound, ServerError
from autoglm.types import ErrorInfo, TaskSpec, TaskState
from runtime.bell import Bell, Signal
from runtime.config import Config
from runtime.mailbox import ActorDied, Answered, Mailbox
from runtime.queueconfig import with_built_in
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store.health import Health
from runtime.supervision import describe
from tests.simulation.disk import Mishaps, SimulatedStore
from tests.simulation.loop import VirtualClock, run_virtually
from tests.simulation.world import Universe


class OneMishap(Mishaps):
    """Strikes once, when the test says so."""

    def __init__(self, universe: Universe) -> None:
        super().__init__(universe, 0, 0)
        self.before: Exception | None = None
        self.always: Exception | None = None
        self.after: Exception | None = None

    def before_commit(self) -> None:
        error, self.before = self.before or self.always, None
        if error is not None:
            raise error

    def strike(self, victim: object = None) -> None:
        error, self.after = self.after, None
        if error is not None:
            raise error


class Stage:
    """A persister on a real store, with those who hear from it played by the test."""

    def __init__(self, universe: Universe, path: Path) -> None:
        self.clock = universe.clock
        self.config = Config()
        self.asker: Mailbox[Any] = Mailbox(100)
        self.scheduler: Mailbox[Any] = Mailbox(1)
        self.frontdoor: Mailbox[Any] = Mailbox(1)
        self.batcher: Mailbox[Any] = Mailbox(10)
        self.scheduler_missed = Signal(self.scheduler.bell)
        self.frontdoor_missed = Signal(self.frontdoor.bell)
        bell = Bell()
        self.engine_lane: Mailbox[Commit] = Mailbox(100, bell)
        self.intake: Mailbox[Commit] = Mailbox(100, bell)
        self.mishap = OneMishap(universe)
        self.store = SimulatedStore(universe, path, 0.001, self.mishap)
        self.store.open_now()
        self.chores = Signal(Bell())
        self.outlets = Outlets(
            *(self.scheduler, self.scheduler_missed, self.frontdoor, self.frontdoor_missed),
            {"batcher": self.batcher},
            self.chores,
        )
        self.persister: Persister
        self.health = Health()
        self.failures: list[str] = []

    async def run_until_it_fails(self) -> None:
        """And again after that, as its supervisor does."""
        while True:
            try:
                await self.run()
            except ExceptionGroup as failure:
                self.failures.append(describe(failure))
                self.engine_lane.restore("persister")
                self.intake.restore("persister")

    async def run(self) -> None:
        self.persister = Persister(
            *(self.engine_lane, self.intake, self.store, self.outlets, self.health),
            Queues(with_built_in({}), "none", (), self.clock),
            *(Quotas(self.config, Rates({}, 0), self.clock), self.clock, self.clock.wall_ms),
        )
        await self.persister.run(lambda: None)

    def put(self, write: p.Write, *, lane: Mailbox[Commit] | None = None) -> None:
        lane = self.intake if lane is None else lane
        put = lane.put_nowait(Commit(write, self.asker.reserve(write)))
        assert put

    def insert(self, *ids: str, **more: Any) -> None:
        self.put(p.InsertTasks(tuple(TaskSpec(id, prompt=id, **more) for id in ids)))

    async def answers(self) -> list[Any]:
        await self.clock.sleep(0.05)
        return [each.answer for each in self.asker.drain_nowait()]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    def run(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
        universe = Universe(0)

        async def main(_: VirtualClock) -> None:
            stage = Stage(universe, tmp_path / "queue.sqlite3")
            async with anyio.create_task_group() as group:
                group.start_soon(stage.run_until_it_fails)
                await stage.clock.sleep(0.05)
                await scene(stage)
                group.cancel_scope.cancel()
            stage.store.discard()

        run_virtually(main, universe.loop)

    return run


def test_a_chore_that_a_commit_leaves_is_told_to_who_does_it(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        for id, fresh, told in (("first", False, False), ("second", True, True)):
            stage.put(jp.OpenJob(id, "default", "/out", "input", "options", fresh=fresh))
            await stage.answers()
            assert stage.chores.take() is told

    play(scene)


def test_what_waits_is_committed_together_and_answered_in_order(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.insert("a", "b")
        stage.insert("c")
        first, second = await stage.answers()
        assert [each.task.id for each in (*first, *second)] == ["a", "b", "c"]
        seen = stage.persister.statistics()
        assert (seen.commits, seen.writes, seen.tasks[TaskState.PENDING]) == (1, 2, 3)
        (moved,) = stage.scheduler.drain_nowait()
        assert [len(keys) for keys in moved.ready.values()] == [3]

    play(scene)


def test_the_engines_lane_goes_first(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.insert("a")
        stage.put(p.ClaimTasks("batcher", (1,)), lane=stage.engine_lane)
        await stage.clock.sleep(0.05)
        answered: list[Answered] = stage.asker.drain_nowait()
        order = [type(each.context).__name__ for each in answered]
        assert order == ["ClaimTasks", "InsertTasks"]
        assert stage.engine_lane.statistics().processed == 1
        assert stage.intake.statistics().processed == 1

    play(scene)


def test_nothing_is_told_before_it_is_committed(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.insert("a")
        while not len(stage.asker):
            in_store = stage.store.cx.execute("SELECT count(*) FROM task").fetchone()[0]
            assert not len(stage.scheduler) or in_store
            await stage.clock.sleep(0.000_1)
        assert stage.store.cx.execute("SELECT count(*) FROM task").fetchone() == (1,)

    play(scene)


def test_who_has_no_room_for_news_gets_a_signal(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.frontdoor_missed.take()
        for id in "ab":
            stage.insert(id)
            await stage.answers()
            stage.put(p.CancelTasks(None, (id,)))
            await stage.answers()
        assert isinstance(stage.scheduler.drain_nowait()[0], TasksMoved)
        assert isinstance(stage.frontdoor.drain_nowait()[0], TasksEnded)
        assert stage.scheduler_missed.take()
        assert stage.frontdoor_missed.take()

    play(scene)


def test_a_running_task_that_is_cancelled_is_stopped_at_its_batcher(
    play: Callable[..., None],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.insert("a")
        await stage.answers()
        stage.put(p.ClaimTasks("batcher", (1,)), lane=stage.engine_lane)
        await stage.answers()
        stage.put(p.CancelTasks(None, ("a",)))
        await stage.answers()
        assert stage.batcher.drain_nowait() == [TasksStopped((1,))]

    play(scene)


def test_a_retry_becomes_pending_when_its_pause_is_over(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.insert("a")
        await stage.answers()
        stage.put(p.ClaimTasks("batcher", (1,)), lane=stage.engine_lane)
        retry = p.Outcome(
            *(1, 1, TaskState.RETRYING),
            error=ErrorInfo("engine_error", "no"),
            charged=True,
            retry_in_ms=5_000,
        )
        await stage.answers()
        stage.put(p.RecordOutcomes((retry,)), lane=stage.engine_lane)
        await stage.clock.sleep(4.9)
        assert stage.persister.statistics().tasks[TaskState.RETRYING] == 1
        await stage.clock.sleep(0.3)
        assert stage.persister.statistics().tasks[TaskState.PENDING] == 1

    play(scene)


def test_a_refusal_is_the_askers_alone(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        stage.put(jp.InsertLines(None, "no job", (), last=True))
        stage.insert("a")
        refused, accepted = await stage.answers()
        assert isinstance(refused, Refused)
        assert isinstance(refused.error, NotFound)
        assert accepted[0].task.id == "a"

    play(scene)


def test_a_commit_that_failed_is_answered_and_is_a_failure(
    play: Callable[..., None],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.mishap.before = p.StoreError("the disk is full")
        stage.insert("a")
        (refused,) = await stage.answers()
        assert isinstance(refused, Refused)
        assert str(refused.error) == "the disk is full"
        assert stage.failures == ["StoreError: the disk is full"]
        stage.insert("a")
        (accepted,) = await stage.answers()
        assert not accepted[0].duplicate

    play(scene)


def test_a_full_disk_is_waited_out_however_long_and_work_that_is_done_is_recorded(
    play: Callable[..., None],
) -> None:
    async def scene(stage: Stage) -> None:
        full = stage.mishap.always = p.StoreBlocked("the disk is full")
        stage.put(p.PutBack("batcher"), lane=stage.engine_lane)
        stage.insert("a")
        assert await stage.answers() == [Refused(full)]  # the intake's; the engine's lane waits
        assert stage.health.trouble == "the disk is full"
        await stage.clock.sleep(3600)
        stage.insert("b")
        await stage.clock.sleep(5)
        assert await stage.answers() == [Refused(full)]
        stage.mishap.always = None
        await stage.clock.sleep(5)
        assert await stage.answers() == [()]
        assert stage.health.trouble is None
        stage.insert("a")
        (accepted,) = await stage.answers()
        assert not accepted[0].duplicate
        assert not stage.failures

    play(scene)


def test_nothing_is_written_after_damage_was_found_and_everybody_is_told(
    play: Callable[..., None],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.insert("before")
        await stage.answers()
        damage = stage.mishap.before = p.StoreDamaged("a page is not what it was")
        stage.insert("a")
        assert await stage.answers() == [Refused(damage)]
        stage.put(p.PutBack("batcher"), lane=stage.engine_lane)
        stage.insert("b")
        assert await stage.answers() == [Refused(damage)]
        refusal = stage.health.refusal(stage.clock.monotonic())
        assert isinstance(refusal, ServerError)
        assert refusal.retry_after is None
        assert stage.store.cx.execute("SELECT id FROM task").fetchall() == [("before",)]
        assert not stage.failures

    play(scene)


def test_damage_found_by_somebody_else_stops_the_next_commit(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        damage = p.StoreDamaged("a page is not what it was")
        stage.health.damaged(damage)
        stage.insert("a")
        assert await stage.answers() == [Refused(damage)]
        assert stage.store.cx.execute("SELECT id FROM task").fetchall() == []

    play(scene)


def test_a_death_tells_those_whose_commit_is_in_doubt_and_its_successor_looks_for_news(
    play: Callable[..., None],
) -> None:
    async def scene(stage: Stage) -> None:
        stage.frontdoor_missed.take()
        stage.mishap.after = ValueError("a bug")
        stage.insert("a")
        assert await stage.answers() == [ActorDied("persister")]
        assert stage.failures == ["ValueError: a bug"]
        assert stage.persister.statistics().tasks[TaskState.PENDING] == 1
        assert stage.frontdoor_missed.take()
        stage.insert("a")
        (accepted,) = await stage.answers()
        assert accepted[0].duplicate

    play(scene)


def test_a_commit_under_way_is_seen_through_at_the_end(play: Callable[..., None]) -> None:
    async def scene(stage: Stage) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stage.run)
            await stage.clock.sleep(0.05)
            stage.insert("a")
            await stage.clock.sleep(0.000_1)
            group.cancel_scope.cancel()
        (answered,) = stage.asker.drain_nowait()
        assert answered.answer[0].task.id == "a"

    play(scene)
