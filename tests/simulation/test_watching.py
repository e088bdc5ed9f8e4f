"""The simulation complains of the product's mistakes, and of nothing that it does itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.types import TaskSpec
from runtime.store import protocol as p
from runtime.store.queueprotocol import SteerQueue
from tests.simulation.degraded import WatchedStore
from tests.simulation.disk import InjectedFault, Mishaps, SimulatedStore
from tests.simulation.loop import run_virtually
from tests.simulation.plan import Plan
from tests.simulation.world import Universe


class LateFault(Mishaps):
    """While it is armed, whoever committed fails before it hears so."""

    armed = False

    def before_commit(self) -> None:
        pass

    def strike(self, victim: object = None) -> None:
        if self.armed:
            raise InjectedFault(victim)


class Watched(WatchedStore):
    def _no_engine(self) -> bool:
        return False


def test_a_queue_that_was_resumed_by_a_commit_nobody_heard_of_may_begin(tmp_path: Path) -> None:
    universe = Universe(0)
    mishaps = LateFault(universe, 0, 0)
    found: list[str] = []

    async def scene() -> None:
        store = SimulatedStore(universe, tmp_path / "queue.sqlite3", 0, mishaps)
        store.open_now()
        watched = Watched(store, found)
        task = TaskSpec("a", prompt="a", queue="normal")
        await watched.commit([p.InsertTasks((task,)), SteerQueue("normal", "pause")], 0)
        mishaps.armed = True
        with pytest.raises(InjectedFault):
            await watched.commit([SteerQueue("normal", "resume")], 1)
        mishaps.armed = False
        claimed = await watched.commit([p.ClaimTasks("batcher", (1,))], 2)
        assert len(claimed.results[0]) == 1

    run_virtually(lambda _: scene(), universe.loop)
    assert found == []


def test_where_an_attempt_may_be_slow_no_engine_is_broken_while_it_works() -> None:
    """A hung one could not be told from a slow one before its tasks have timed out."""
    for seed in range(300):
        universe = Universe(seed)
        plan = Plan(universe)
        universe.loop.close()
        assert not (plan.slow and plan.engine_deaths), seed
