"""The watchdog: the manager hears of a server that works, and nothing of one that is stuck.

The whole tree, in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.tree import Tree
from actors.world import Identity, World
from runtime.breaker import BreakerOptions
from runtime.config import Config, EngineConfig, SimulatedConfig, SupervisionConfig
from runtime.store.protocol import Query, StoreBlocked, StoreDamaged, StoreError
from runtime.supervision import ChildState, Supervised
from tests.simulation.disk import Mishaps, SimulatedStore
from tests.simulation.engines import EngineRoom
from tests.simulation.loop import run_virtually
from tests.simulation.manager import SimulatedManager
from tests.simulation.net import Network
from tests.simulation.world import Universe

WATCHDOG_S = 9.0
LONG_S = 10 * WATCHDOG_S
ACTORS = ("frontdoor", "monitor", "reader", "retention", "persister", "scheduler", "batcher-1")
BEHIND_STORE = ("persister", "scheduler", "batcher-1")
HELD_AT_ONCE = BreakerOptions(consecutive_max=0, delay_first_s=10_000, delay_max_s=10_000)
CONFIG = Config(
    engine=EngineConfig(kind="simulated", simulated=SimulatedConfig(load_s=0.1)),
    supervision=SupervisionConfig(actors=HELD_AT_ONCE),
)


class Ward:
    """A tree in a universe of its own, and the manager that watches it."""

    def __init__(self, folder: Path) -> None:
        universe = self._universe = Universe(0)
        self.clock = universe.clock
        self.manager = SimulatedManager(universe.clock, WATCHDOG_S)
        self._store = SimulatedStore(
            *(universe, folder / "queue.sqlite3", 0.001, Mishaps(universe, 0, 0))
        )
        self._store.open_now()
        world = World(
            clock=universe.clock,
            rng=universe.rng("server"),
            ids=universe.ids("server"),
            store=self._store,
            listen=Network(universe, 0.001).listen,
            launch=EngineRoom(universe, 0.001).launcher,
            signal=lambda _pid, _number: None,
            manager=self.manager,
        )
        self.tree = Tree(CONFIG, Identity("0", 1, "simulated", "none", str(folder)), world)

    def actor(self, name: str) -> Supervised:
        return next(child for child in self.tree.actors() if child.spec.name == name)

    def wedge(self, name: str) -> None:
        """It never comes back from its next turn."""
        method = "_commit_all" if name == "persister" else "settle"
        setattr(self.actor(name).instance, method, anyio.sleep_forever)

    def wedge_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def query(_: Query) -> Any:
            await anyio.sleep_forever()

        monkeypatch.setattr(self._store, "query", query)

    async def heard(self, seconds: float = LONG_S) -> int:
        """How often the manager hears that the server is alive, from now on."""
        before = self.manager.alive
        await self.clock.sleep(seconds)
        return self.manager.alive - before

    def run(self, scene: Callable[[Ward], Coroutine[Any, Any, None]]) -> None:
        universe = self._universe

        async def main() -> None:
            done = anyio.Event()
            problems: list[BaseException] = []

            async def serve() -> None:
                async with anyio.create_task_group() as group:
                    group.start_soon(self.tree.run)
                    try:
                        await self.clock.sleep(1)
                        await scene(self)
                    except BaseException as error:
                        problems.append(error)
                    done.set()
                    group.cancel_scope.cancel()

            universe.spawn("server", serve)
            await done.wait()
            if problems:
                raise problems[0]

        run_virtually(lambda _: main(), universe.loop)
        self._store.discard()


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    return Ward(tmp_path)


def test_a_server_is_ready_once_and_then_alive_three_times_in_the_time_it_is_given(
    ward: Ward,
) -> None:
    async def scene(ward: Ward) -> None:
        assert ward.manager.ready
        assert [child.spec.name for child in ward.tree.actors()] == [*ACTORS]
        assert 25 <= await ward.heard() <= 31
        assert ward.manager.told.count("READY=1") == 1
        assert ward.manager.status == "accepts tasks"

    ward.run(scene)


@pytest.mark.parametrize("name", ACTORS)
def test_nothing_is_heard_of_a_server_with_a_stuck_actor(name: str, ward: Ward) -> None:
    async def scene(ward: Ward) -> None:
        ward.wedge(name)
        assert await ward.heard() <= 1  # it may have been said just before
        assert ward.manager.status == f"stuck: {name}"

    ward.run(scene)


def test_nothing_is_heard_while_the_store_does_not_answer(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(ward: Ward) -> None:
        ward.wedge_store(monkeypatch)
        assert await ward.heard() <= 1
        assert ward.manager.status == "stuck: the store"

    ward.run(scene)


@pytest.mark.parametrize("error", [StoreBlocked("the disk is full"), StoreDamaged("a page is off")])
@pytest.mark.parametrize("name", ACTORS)
def test_only_those_who_wait_for_the_store_may_be_late_while_it_takes_nothing(
    name: str, error: StoreError, ward: Ward
) -> None:
    async def scene(ward: Ward) -> None:
        health = ward.tree.health
        if isinstance(error, StoreDamaged):
            health.damaged(error)
        else:
            assert isinstance(error, StoreBlocked)
            health.blocked(error, ward.clock.monotonic())
        ward.wedge(name)
        heard = await ward.heard()
        assert heard >= 25 if name in BEHIND_STORE else heard <= 1
        if name in BEHIND_STORE:
            assert ward.manager.status == f"nothing is accepted: {error}"

    ward.run(scene)


@pytest.mark.parametrize("name", ACTORS)
def test_who_is_held_by_an_open_breaker_is_not_stuck(name: str, ward: Ward) -> None:
    async def scene(ward: Ward) -> None:
        nonsense: Any = object()
        child = ward.actor(name)
        child.spec.mailboxes[0].put_nowait(nonsense)
        await ward.clock.sleep(0.1)
        assert child.state is ChildState.HELD
        assert child.breaker.wait_s(ward.clock.monotonic()) > LONG_S
        assert await ward.heard() >= 25

    ward.run(scene)


def test_it_says_that_it_stops_and_goes_on_being_heard_while_work_is_finished(
    ward: Ward,
) -> None:
    async def scene(ward: Ward) -> None:
        await ward.tree.drain(1)
        assert ward.manager.told[-2:] == ["STOPPING=1", "STATUS=draining"]
        assert await ward.heard(WATCHDOG_S) >= 2
        assert ward.manager.status == "draining"

    ward.run(scene)
