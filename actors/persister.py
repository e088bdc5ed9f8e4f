"""The persister: the one writer of the store.

Owns the write connection, the number of tasks in each state, and the time of the next thing due.
Accepts `Commit` in two lanes. The engine's lane (claims, outcomes) is served before the intake
(submissions, cancellations), so that work under way never waits for work to come.
Emits, after the commit: the answers; `TasksMoved` to the scheduler; `TasksEnded` to the frontdoor;
`TasksStopped` to the batchers; a signal to the retention when a chore is left.

It never waits for a mailbox: only edges into the persister may wait, and that is why the ring of
actors can't deadlock. Answers go to room that the asker reserved; a scheduler or frontdoor whose
mailbox is full gets a signal instead, and looks into the store by itself.

A disk that is full, or a store that another program holds, is no failure of the persister: the
intake is refused, the engine's lane waits here until the store takes it, because what it brings is
work done. A damaged store is not written again.

When it dies, what was being committed may or may not be durable: its askers are told so and ask
again, which is safe. Counts and times are read from the store at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

import anyio

from actors.messages import Commit, Refused, TasksEnded, TasksMoved, TasksStopped
from actors.queues import Queues
from actors.quotas import Quotas
from autoglm.errors import AutoGLMError
from autoglm.types import TaskState
from runtime.actor import Statistics
from runtime.alarm import Alarm
from runtime.bell import Bell, Signal
from runtime.clock import Clock
from runtime.mailbox import Mailbox
from runtime.store.health import Health
from runtime.store.protocol import (
    Committed,
    Effects,
    FetchSummary,
    Lane,
    ReleaseDue,
    Store,
    StoreBlocked,
    StoreDamaged,
    StoreError,
    Summary,
)

log = logging.getLogger("autoglm.store")

ENGINE_LANE_CAPACITY = 1024
INTAKE_CAPACITY = 4096
DUE_AGAIN_S = 1.0
"""How soon what was due is tried again when it failed."""
COMMIT_MAX = 256
"""Writes in one transaction: bounds how long those in the next one wait."""


class PersisterStatistics(Statistics, frozen=True):
    tasks: dict[TaskState, int]
    commits: int
    writes: int
    waiting: Mapping[Lane, int]
    """Tasks that neither run nor have ended; changes as we go on."""


class Outlets:
    """Where the persister's news go; filled in by the tree."""

    def __init__(
        self,
        scheduler: Mailbox[Any],
        scheduler_missed: Signal,
        frontdoor: Mailbox[Any],
        frontdoor_missed: Signal,
        batchers: Mapping[str, Mailbox[Any]],
        chores: Signal,
    ) -> None:
        self.scheduler = scheduler
        self.scheduler_missed = scheduler_missed
        self.frontdoor = frontdoor
        self.frontdoor_missed = frontdoor_missed
        self.batchers = batchers
        self.chores = chores


class Persister:
    def __init__(
        self,
        engine_lane: Mailbox[Commit],
        intake: Mailbox[Commit],
        store: Store,
        outlets: Outlets,
        health: Health,
        queues: Queues,
        quotas: Quotas,
        clock: Clock,
        now_ms: Callable[[], int],
    ) -> None:
        assert engine_lane.bell is intake.bell, "two lanes, one reader"
        self._engine_lane = engine_lane
        self._intake = intake
        self._bell: Bell = intake.bell
        self._store = store
        self._outlets = outlets
        self._health = health
        """Outlives us: damage is not forgotten by a restart."""
        self._queues = queues
        """What stands in for the engines; told of what is set."""
        self._quotas = quotas
        """How much may be taken in; told of every commit."""
        self._clock = clock
        self._now_ms = now_ms
        self._due = Alarm(clock, Signal(self._bell))
        self._tasks: dict[TaskState, int] = {}
        """Tasks in each state; changed after commits only."""
        self._waiting: dict[Lane, int] = {}
        """Tasks that neither run nor have ended, by lane; none where there are none."""
        self._commits = 0
        self._writes = 0

    async def run(self, started: Callable[[], None]) -> None:
        summary = await self._summary()
        self._tasks = {state: summary.counts.get(state, 0) for state in TaskState}
        self._waiting = dict(summary.waiting)
        self._queues.recalled(summary.queues, summary.paused)
        self._set_due(summary.next_due_ms)
        self._outlets.frontdoor_missed.set()  # our predecessor may have died with news to tell
        started()
        async with anyio.create_task_group() as group:
            group.start_soon(self._due.run)
            while True:
                await self._bell.wait_rung()
                if self._due.rang():
                    await self._commit([Commit(ReleaseDue())], [])
                await self._commit_all()

    def statistics(self) -> PersisterStatistics:
        return PersisterStatistics(
            dict(self._tasks), self._commits, self._writes, MappingProxyType(self._waiting)
        )

    async def _commit_all(self) -> None:
        """One transaction after another until both lanes are empty."""
        while len(self._engine_lane) or len(self._intake):
            self._bell.visits += 1
            first = self._engine_lane.drain_nowait(COMMIT_MAX)
            second = self._intake.drain_nowait(COMMIT_MAX - len(first))
            self._engine_lane.all_taken()
            self._intake.all_taken()
            await self._commit(first, second)
            self._engine_lane.done()
            self._intake.done()

    async def _commit(self, engine: list[Commit], intake: list[Commit]) -> None:
        """One transaction of both. While the store is blocked, `intake` is refused and `engine`
        tried again; once it is damaged this never returns.
        """
        health = self._health
        while engine or intake:
            batch = [*engine, *intake]
            try:
                if health.damage is not None:
                    raise health.damage
                writes = self._queues.equip([message.write for message in batch])
                writes = self._quotas.equip(writes, self._queues.closed())
                committed = await self._store.commit(writes, self._now_ms())
            except StoreDamaged as error:
                health.damaged(error)
                await self._refuse_for_good(intake, error)
            except StoreBlocked as error:
                self._refuse(intake, error)
                await self._rest(error)
                intake = []
            except StoreError as error:
                self._refuse(batch, error)
                raise  # our breaker paces the next try
            else:
                health.committed()
                self._on_committed(batch, committed)
                return

    def _on_committed(self, batch: list[Commit], committed: Committed) -> None:
        self._commits += 1
        self._writes += len(batch)
        for message, result in zip(batch, committed.results, strict=True):
            failed = isinstance(result, AutoGLMError | StoreError)
            if message.reply is not None:
                message.reply.send(Refused(result) if failed else result)
            elif failed:
                log.error("%s", result)
                self._due.no_later_than(self._clock.monotonic() + DUE_AGAIN_S)
        self._publish(committed.effects)

    async def _rest(self, error: StoreBlocked) -> None:
        """Until the store may be tried again. Who comes meanwhile is refused at the door."""
        health, clock = self._health, self._clock
        if health.block is None:
            log.warning("nothing is accepted for now: %s", error)
        health.blocked(error, clock.monotonic())
        self._refuse(self._intake.drain_nowait(), error)
        self._intake.done()
        while (rest_s := health.rest_s(clock.monotonic())) > 0:
            await clock.sleep(rest_s)
        health.trying(clock.monotonic())

    async def _refuse_for_good(self, intake: list[Commit], error: StoreDamaged) -> NoReturn:
        log.error("nothing more is accepted: %s", error)
        while True:
            self._refuse(intake, error)
            await self._bell.wait_rung()
            intake = self._intake.drain_nowait()
            self._intake.done()

    async def _summary(self) -> Summary:
        while self._health.damage is None:
            try:
                summary: Summary = await self._store.query(FetchSummary())
            except StoreDamaged as error:
                self._health.damaged(error)
            except StoreBlocked as error:
                await self._rest(error)
            else:
                return summary
        return Summary({}, None)

    @staticmethod
    def _refuse(batch: list[Commit], error: StoreError) -> None:
        for message in batch:
            if message.reply is not None:
                message.reply.send(Refused(error))

    def _publish(self, effects: Effects) -> None:
        """Tell of a commit. Nothing here waits."""
        outlets = self._outlets
        self._queues.changed(effects.queues, effects.paused)
        for queue, until_ms in effects.overflowed.items():
            self._queues.overflowed(queue, (until_ms - self._now_ms()) / 1000)
        for lane, change in effects.waiting.items():
            self._count_waiting(lane, change)
        self._quotas.committed(effects)
        for state, change in effects.counts.items():
            self._tasks[state] += change
        if effects.paused:
            outlets.scheduler_missed.set()  # claims of it under way were, or are, left out
        if effects.ready or effects.left or effects.gone:
            news = (effects.ready, effects.left, effects.gone, effects.urgent, effects.begins)
            moved = TasksMoved(*news)
            if not outlets.scheduler.put_nowait(moved):
                outlets.scheduler_missed.set()
        if effects.endings or effects.jobs:
            ended = TasksEnded(tuple(effects.endings), frozenset(effects.jobs))
            if not outlets.frontdoor.put_nowait(ended):
                outlets.frontdoor_missed.set()
        for owner in sorted({stopped.owner for stopped in effects.stopped}):
            seqs = tuple(stopped.seq for stopped in effects.stopped if stopped.owner == owner)
            batcher = outlets.batchers.get(owner)
            if batcher is not None:
                # Lost when full: the engine then works in vain, and the fence refuses the result.
                batcher.put_nowait(TasksStopped(seqs))
        if effects.chores:
            outlets.chores.set()
        self._set_due(effects.next_due_ms)

    def _count_waiting(self, lane: Lane, change: int) -> None:
        count = self._waiting.get(lane, 0) + change
        if count:
            self._waiting[lane] = count
        else:
            self._waiting.pop(lane, None)

    def _set_due(self, at_ms: int | None) -> None:
        if at_ms is not None:
            wait_s = max(0, at_ms - self._now_ms()) / 1000
            self._due.no_later_than(self._clock.monotonic() + wait_s)
