"""The batcher: merges arrivals, keeps what is unrecorded, and gives back what it can't begin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import msgspec

from actors import batcher as batching
from actors.batcher import Batcher
from actors.messages import (
    Commit,
    DemandWithdrawn,
    Drain,
    Refused,
    TasksAssigned,
    TasksStopped,
    WantTasks,
)
from actors.totals import Totals
from autoglm.types import TaskState
from model.host import EngineHost
from model.hosted import HostedEngine
from model.simulated import SimulatedEngine
from runtime.breaker import BreakerOptions
from runtime.config import BatchConfig, Config, EngineConfig, RetryConfig, SimulatedConfig
from runtime.mailbox import Mailbox
from runtime.process import Host
from runtime.store.protocol import ClaimedTask, Outcome, PutBack, RecordOutcomes, StoreError
from tests.simulation.engines import MemoryHost
from tests.simulation.loop import Process, VirtualClock, run_virtually
from tests.simulation.net import MemoryChannel, pair
from tests.simulation.world import Universe

CONFIG = Config(
    engine=EngineConfig(
        kind="simulated",
        max_num_seqs=4,
        faults=True,
        simulated=SimulatedConfig(load_s=0, step_ms=10, prefill_tok_s=0, output_tokens=100),
    ),
    batch=BatchConfig(window_ms=10),
    retry=RetryConfig(attempt_timeout_s=5),
)
A_TURN_S = 0.000_5


class Stage:
    """A batcher on a real hosted engine; the store and the scheduler are played by the test."""

    def __init__(self, universe: Universe, group: anyio.abc.TaskGroup) -> None:
        self.clock = universe.clock
        self.universe = universe
        self.group = group
        self.mailbox: Mailbox[Any] = Mailbox(batching.CAPACITY)
        self.persister: Mailbox[Commit] = Mailbox(100)
        self.scheduler: Mailbox[Any] = Mailbox(100)
        self.totals = Totals()
        self.process: Process | None = None
        self.engine: HostedEngine[ClaimedTask] = HostedEngine(
            "engine", CONFIG.engine, self._launch, self.clock, lambda _: None, BreakerOptions()
        )
        self.scope = anyio.CancelScope()

    async def _launch(self) -> Host:
        near, far = pair(self.universe, "host", 0.0)
        channel = MemoryChannel(far)

        async def main() -> None:
            await EngineHost(channel, self.clock, SimulatedEngine).serve()

        self.process = self.universe.spawn("engine", main)
        far.held_by(self.process)
        return MemoryHost(self.process, MemoryChannel(near), 1)

    async def start_engine(self) -> None:
        async def run() -> None:
            with contextlib.suppress(Exception):  # its death is the scene
                await self.engine.run(lambda: None)

        self.group.start_soon(run)
        await self.turn(0.1)

    async def start(self) -> frozenset[tuple[int, int]]:
        """A new instance. Returns what it says it still has."""
        batcher = Batcher(
            *("batcher-1", self.mailbox, self.engine, self.persister, self.scheduler),
            *(CONFIG, self.clock, self.universe.rng("draws"), self.totals),
        )

        async def run() -> None:
            with anyio.CancelScope() as self.scope:
                await batcher.run(lambda: None)
            self.mailbox.restore("batcher-1")

        self.group.start_soon(run)
        await self.turn()
        (commit,) = self.persister.drain_nowait()
        assert isinstance(commit.write, PutBack)
        assert commit.reply is not None
        commit.reply.send(())
        await self.turn()
        return commit.write.keep

    async def stop(self) -> None:
        self.scope.cancel()
        await self.turn()

    async def turn(self, seconds: float = A_TURN_S) -> None:
        await self.clock.sleep(seconds)

    async def assign(self, *tasks: ClaimedTask, term: int | None = None) -> None:
        latest = [each.term for each in self.wants()][-1:] or [1]
        self.mailbox.put_nowait(TasksAssigned(term or latest[0], tasks))
        await self.turn()

    def wants(self) -> list[WantTasks]:
        return [each for each in self.scheduler.drain_nowait() if isinstance(each, WantTasks)]

    async def outcomes(self, *, refuse: bool = False) -> list[Outcome]:
        found: list[Outcome] = []
        for commit in self.persister.drain_nowait():
            assert isinstance(commit.write, RecordOutcomes)
            assert commit.reply is not None
            found += commit.write.outcomes
            answer = len(commit.write.outcomes)
            commit.reply.send(Refused(StoreError("full")) if refuse else answer)
        await self.turn()
        return found

    def triggers(self) -> dict[str, int]:
        return dict(self.totals.triggers)


def task(seq: int, prompt: str = "p", **more: Any) -> ClaimedTask:
    plain = ClaimedTask(seq, f"id {seq}", 1, 0, 0, 5, seq, stream=False, prompt=prompt)
    return msgspec.structs.replace(plain, **more)


def play(scene: Callable[[Stage], Coroutine[Any, Any, None]]) -> None:
    universe = Universe(0)

    async def main(_: VirtualClock) -> None:
        async with anyio.create_task_group() as group:
            stage = Stage(universe, group)
            await stage.start_engine()
            await stage.start()
            await scene(stage)
            group.cancel_scope.cancel()

    run_virtually(main, universe.loop)


def states(outcomes: list[Outcome]) -> list[tuple[int, TaskState]]:
    return [(each.seq, each.state) for each in outcomes]


def test_it_asks_for_a_little_more_than_the_engine_has_slots() -> None:
    async def scene(stage: Stage) -> None:
        assert stage.wants() == [WantTasks("batcher-1", 1, 5, urgent=1)]

    play(scene)


def test_it_flushes_when_the_oldest_request_has_waited_the_window() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1))
        await stage.assign(task(2))
        await stage.turn(0.008)
        assert stage.triggers() == {"idle": 1}
        await stage.assign(task(3))
        await stage.turn(0.002)
        assert stage.triggers() == {"idle": 1, "window": 1}
        assert stage.engine.flying == 3

    play(scene)


def test_urgent_tasks_never_wait() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1))
        await stage.assign(task(2, priority=1))
        assert stage.triggers() == {"idle": 1, "urgent": 1}

    play(scene)


def test_an_answer_is_kept_until_it_is_recorded() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1, "p [[tokens:1]]"))
        await stage.turn(0.1)
        assert states(await stage.outcomes(refuse=True)) == [(1, TaskState.SUCCEEDED)]
        assert len(stage.engine.flights()) == 1
        await stage.turn(0.1)
        assert states(await stage.outcomes()) == [(1, TaskState.SUCCEEDED)]
        assert stage.engine.flights() == []

    play(scene)


def test_a_new_instance_adopts_what_flies_and_what_is_not_recorded() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1, "p [[tokens:1]]"), task(2, "p [[tokens:20]]"))
        await stage.turn(0.1)
        stage.persister.drain_nowait()
        await stage.stop()
        assert await stage.start() == frozenset({(1, 1), (2, 1)})
        assert states(await stage.outcomes()) == [(1, TaskState.SUCCEEDED)]
        await stage.turn(0.2)
        assert states(await stage.outcomes()) == [(2, TaskState.SUCCEEDED)]

    play(scene)


def test_what_was_assigned_to_its_predecessor_is_given_back() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1))
        await stage.stop()
        stage.mailbox.put_nowait(TasksAssigned(1, (task(2),)))
        await stage.start()
        assert states(await stage.outcomes()) == [(2, TaskState.PENDING)]
        assert stage.engine.flying == 1

    play(scene)


def test_a_death_puts_everything_back_and_withdraws_the_demand() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*(task(seq) for seq in range(1, 6)))
        assert stage.process is not None
        stage.process.kill()
        await stage.turn(0.01)
        found = await stage.outcomes()
        assert states(found) == [(seq, TaskState.PENDING) for seq in range(1, 6)]
        assert [each.died for each in found] == [True] * 4 + [False]
        assert not any(each.charged for each in found)
        messages = stage.scheduler.drain_nowait()
        assert messages == [] or isinstance(messages[-1], DemandWithdrawn)

    play(scene)


def test_suspects_are_tried_half_of_the_slots_at_a_time_and_nobody_joins_them() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*(task(seq, deaths=2, prompt="p [[tokens:4]]") for seq in (1, 2, 3)))
        await stage.turn(0.011)
        assert stage.triggers() == {"trial": 1}
        assert stage.engine.flying == 2
        await stage.assign(task(4, priority=0))
        await stage.turn(0.02)
        assert stage.engine.flying == 2
        await stage.turn(0.02)
        assert stage.triggers() == {"trial": 1, "idle": 1}

    play(scene)


def test_a_death_on_trial_halves_the_company_and_blames_nobody_for_it() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*(task(seq, deaths=2) for seq in (1, 2)))
        await stage.turn(0.011)
        assert stage.process is not None
        stage.process.kill()
        await stage.turn(0.01)
        found = await stage.outcomes()
        assert [(each.state, each.died, each.charged) for each in found] == [
            (TaskState.PENDING, True, False)
        ] * 2

    play(scene)


def test_a_suspect_stays_alone_across_a_restart() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1, deaths=2))
        await stage.turn(0.011)
        await stage.stop()
        await stage.start()
        await stage.assign(task(2))
        await stage.turn(0.05)
        assert stage.engine.flying == 1

    play(scene)


def test_a_suspect_that_waits_for_its_turn_keeps_nobody_busy() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1, "p [[tokens:50]]"))
        await stage.assign(task(2, deaths=2))
        before = stage.universe.loop.steps
        await stage.turn(0.4)
        assert stage.universe.loop.steps - before < 600
        await stage.turn(0.2)
        assert stage.triggers() == {"idle": 1, "trial": 1}

    play(scene)


def test_a_stopped_task_leaves_the_engine_and_nothing_is_recorded() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1), task(2))
        stage.mailbox.put_nowait(TasksStopped((1,)))
        await stage.turn()
        assert stage.engine.flying == 1
        await stage.turn(2)
        assert states(await stage.outcomes()) == [(2, TaskState.SUCCEEDED)]

    play(scene)


def test_an_attempt_that_takes_too_long_fails_and_is_charged() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(task(1, "p [[tokens:5000]]"))
        await stage.turn(4.9)
        assert await stage.outcomes() == []
        await stage.turn(0.2)
        (outcome,) = await stage.outcomes()
        assert (outcome.state, outcome.charged) == (TaskState.RETRYING, True)
        assert outcome.error is not None
        assert outcome.error.code == "timeout"

    play(scene)


def test_a_task_may_have_its_own_time_out_shorter_or_longer_than_the_others() -> None:
    async def scene(stage: Stage) -> None:
        endless = "p [[tokens:5000]]"
        await stage.assign(
            task(1, endless, attempt_timeout_s=20),
            task(2, endless),
            task(3, endless, attempt_timeout_s=1),
        )
        ended: list[tuple[float, int]] = []
        while len(ended) < 3:
            await stage.turn(0.1)
            ended += [(round(stage.clock.monotonic()), each.seq) for each in await stage.outcomes()]
        assert ended == [(1, 3), (5, 2), (20, 1)]

    play(scene)


def test_a_server_that_ends_gets_back_what_has_not_begun() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*(task(seq) for seq in range(1, 6)))
        stage.mailbox.put_nowait(Drain())
        await stage.turn()
        assert states(await stage.outcomes()) == [(5, TaskState.PENDING)]
        await stage.turn(2)
        assert len(await stage.outcomes()) == 4
        assert stage.wants() == []

    play(scene)


def full(*more: ClaimedTask) -> tuple[ClaimedTask, ...]:
    """As many as there are slots, of which one is dear and one is cheap to bring back."""
    return (task(1, "p " * 400), task(2, "p " * 4), task(3, "p " * 400), task(4, "p " * 400), *more)


async def assign_urgent(stage: Stage, *tasks: ClaimedTask) -> None:
    stage.mailbox.put_nowait(TasksAssigned(1, tasks, urgent=True))
    await stage.turn(0.002)


def test_an_urgent_task_takes_the_slot_of_the_cheapest_which_is_put_back_with_its_tokens() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*full())
        await stage.turn(0.105)
        await assign_urgent(stage, task(9, "now", priority=1))
        (stopped,) = await stage.outcomes()
        assert (stopped.seq, stopped.state, stopped.charged) == (2, TaskState.PENDING, False)
        assert stopped.partial is not None
        assert len(stopped.partial.tokens) == 10
        assert stage.triggers() == {"idle": 1, "size": 1}
        flying = {flight.task.seq for flight in stage.engine.flights()}
        assert flying == {1, 3, 4, 9}
        again = task(2, "p " * 4, attempt=2, continued=stopped.partial)
        await stage.assign(again, term=1)
        await stage.turn(3)
        (text,) = [each.output for each in await stage.outcomes() if each.seq == 2]
        assert text is not None
        assert text.text.startswith(stopped.partial.text)
        assert (text.usage.prompt_tokens, text.usage.completion_tokens) == (4, 100)

    play(scene)


def test_where_each_tenant_has_its_part_an_urgent_task_takes_a_slot_of_its_own() -> None:
    async def scene(stage: Stage) -> None:
        of = [("normal", "a"), ("normal", "a"), ("normal", "b"), ("normal", "b")]
        running = [task(seq, lane=lane) for seq, lane in enumerate(of, start=1)]
        await stage.assign(*running)
        await stage.turn(0.105)
        urgent = task(9, priority=0, lane=("normal", "a"))
        await assign_urgent(stage, urgent)
        assert [each.seq for each in await stage.outcomes()] == [1]

    play(scene)


def test_a_trial_is_not_stopped_for_anybody() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*(task(seq, deaths=2) for seq in (1, 2, 3, 4)))
        await stage.turn(0.105)
        await assign_urgent(stage, task(9, priority=0))
        assert await stage.outcomes() == []

    play(scene)


def test_urgent_tasks_are_wanted_beyond_the_room_there_is() -> None:
    async def scene(stage: Stage) -> None:
        await stage.assign(*full(task(5)))
        stage.wants()
        await assign_urgent(stage, task(9, priority=0, rank=-1))
        await stage.outcomes()
        assert sum(want.urgent for want in stage.wants()) == 1

    play(scene)
