"""The actor of the drills: one at a time, the same one once, and lifted whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

import anyio
import pytest

from actors.drillparts import Parts
from actors.drills import Begin, ConnectionGone, DrillMessage, Drills, Look, Memory
from actors.messages import Refused
from autoglm.drill import FILL_DISK, KILL_ACTOR, SLOW_DISK, Drill, DrillPlan
from autoglm.errors import Conflict, InvalidRequest, NotFound
from runtime.mailbox import Mailbox, ask
from runtime.store.health import Health
from runtime.store.protocol import Fault, Store, StoreBlocked
from tests.simulation.loop import VirtualClock, run_virtually

SLOW = DrillPlan(SLOW_DISK, slow_ms=200, for_ms=10_000)
FULL = DrillPlan(FILL_DISK, for_ms=10_000)


class Disk:
    """A store of which only the faults are of interest."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.broken = False

    async def impair(self, fault: Fault | None) -> None:
        if self.broken:
            raise StoreBlocked("it can't be written")
        self.fault = fault


class Stage:
    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.disk, self.health, self.memory = Disk(), Health(), Memory()
        self.mailbox: Mailbox[DrillMessage] = Mailbox(8)

    async def run(self) -> None:
        parts = Parts((), (), cast("Store", self.disk), self.health, _nobody)
        drills = Drills(self.mailbox, self.memory, parts, self.clock, self.clock.wall_ms)
        await drills.run(lambda: None)

    async def begin(self, id: str, plan: DrillPlan, connection: object = None) -> Any:
        return await ask(self.mailbox, lambda reply: Begin(id, plan, connection, "somebody", reply))

    async def look(self, id: str, *, end: bool = False) -> Any:
        return await ask(self.mailbox, lambda reply: Look(id, end, reply))


Scene = Callable[[Stage], Coroutine[Any, Any, None]]


def play(scene: Scene) -> None:
    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.run)
            await scene(stage)
            group.cancel_scope.cancel()

    run_virtually(main)


def test_a_slow_disk_is_lifted_when_its_time_is_over() -> None:
    async def scene(stage: Stage) -> None:
        begun: Drill = await stage.begin("a", SLOW)
        assert stage.disk.fault == Fault(begun.began_at + 10_000, slow_ms=200)
        await stage.clock.sleep(9.9)
        assert stage.disk.fault is not None
        await stage.clock.sleep(0.2)
        assert stage.disk.fault is None
        drill: Drill = await stage.look("a")
        assert drill.lifted == "its time was over"
        assert drill.up_at == drill.lifted_at

    play(scene)


def test_a_full_disk_is_up_again_when_something_was_committed() -> None:
    async def scene(stage: Stage) -> None:
        await stage.begin("a", FULL)
        stage.health.blocked(StoreBlocked("full"), stage.clock.monotonic())
        await stage.clock.sleep(11)
        drill: Drill = await stage.look("a")
        assert drill.noticed_at is not None
        assert drill.lifted_at is not None
        assert drill.up_at is None
        stage.health.committed()
        await stage.clock.sleep(0.1)
        drill = await stage.look("a")
        assert drill.up_at is not None

    play(scene)


def test_a_drill_ends_with_the_connection_that_began_it_and_with_no_other() -> None:
    async def scene(stage: Stage) -> None:
        mine, other = object(), object()
        await stage.begin("a", SLOW, mine)
        await stage.mailbox.put(ConnectionGone(other))
        assert (await stage.look("a")).lifted is None
        await stage.mailbox.put(ConnectionGone(mine))
        assert (await stage.look("a")).lifted == "whoever began it is gone"
        assert stage.disk.fault is None

    play(scene)


def test_a_drill_that_is_ended_early_is_lifted() -> None:
    async def scene(stage: Stage) -> None:
        await stage.begin("a", SLOW)
        assert (await stage.look("a", end=True)).lifted == "it was ended early"
        assert stage.disk.fault is None

    play(scene)


@pytest.mark.parametrize("broken", [False, True])
def test_a_drill_is_lifted_when_its_actor_dies_and_is_known_to_the_next(broken: bool) -> None:
    async def main(clock: VirtualClock) -> None:
        stage = Stage(clock)
        async with anyio.create_task_group() as group:
            group.start_soon(stage.run)
            await stage.begin("a", SLOW)
            stage.disk.broken = broken
            group.cancel_scope.cancel()
        assert broken or stage.disk.fault is None
        async with anyio.create_task_group() as group:
            group.start_soon(stage.run)
            assert (await stage.look("a")).lifted == "its actor or the server ended"
            group.cancel_scope.cancel()

    run_virtually(main)


def test_the_same_drill_is_begun_once_and_another_one_waits_its_turn() -> None:
    async def scene(stage: Stage) -> None:
        first: Drill = await stage.begin("a", SLOW)
        await stage.clock.sleep(1)
        assert await stage.begin("a", SLOW) == first
        refused = await stage.begin("b", FULL)
        assert isinstance(refused.error, Conflict)
        assert "slow-disk of store by somebody" in str(refused.error)
        await stage.look("a", end=True)
        assert isinstance(await stage.begin("b", FULL), Drill)

    play(scene)


@pytest.mark.parametrize(
    ("plan", "kind"),
    [
        (DrillPlan("flood"), InvalidRequest),
        (DrillPlan(SLOW_DISK, slow_ms=0, for_ms=5), InvalidRequest),
        (DrillPlan(SLOW_DISK, slow_ms=5, for_ms=10**9), InvalidRequest),
        (DrillPlan(FILL_DISK), InvalidRequest),
        (DrillPlan(KILL_ACTOR, "nobody"), NotFound),
    ],
)
def test_what_can_not_be_done_is_refused_and_nothing_is_under_way(
    plan: DrillPlan, kind: type[Exception]
) -> None:
    async def scene(stage: Stage) -> None:
        refused = await stage.begin("a", plan)
        assert isinstance(refused, Refused)
        assert isinstance(refused.error, kind)
        assert isinstance((await stage.look("a")).error, NotFound)

    play(scene)


def test_a_disk_that_can_not_be_struck_is_told_and_nothing_is_under_way() -> None:
    async def scene(stage: Stage) -> None:
        stage.disk.broken = True
        refused = await stage.begin("a", FULL)
        assert "it can't be written" in str(refused.error)
        stage.disk.broken = False
        assert isinstance(await stage.begin("b", FULL), Drill)

    play(scene)


def _nobody(pid: int, number: int) -> None:
    raise AssertionError("there is no process here")
