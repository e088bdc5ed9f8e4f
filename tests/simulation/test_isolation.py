"""The whole server isolates what kills its engine, in virtual time: few deaths, nobody charged."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec
import pytest

from actors.policy.poison import deaths_max
from actors.tree import Tree
from actors.world import Identity, World
from autoglm.types import TaskSpec
from runtime.config import BatchConfig, Config, EngineConfig, SimulatedConfig
from runtime.store.protocol import InsertTasks
from tests.simulation.disk import Mishaps, SimulatedStore
from tests.simulation.engines import EngineRoom
from tests.simulation.loop import Process, run_virtually
from tests.simulation.net import Network
from tests.simulation.plan import CRASH, HANG
from tests.simulation.world import Universe

STEPS_MAX = 5_000_000
LIVENESS_S = 3_600


class Row(msgspec.Struct, frozen=True):
    prompt: str
    state: str
    failures: int
    error: str | None

    @property
    def poison(self) -> bool:
        return CRASH in self.prompt or HANG in self.prompt


class Ward:
    """A server with `prompts` in its store before it starts, and `later` ones that come while it
    runs; `kill_at` says after how many engine starts it is killed.
    """

    def __init__(
        self,
        number: int,
        folder: Path,
        config: Config,
        prompts: list[str],
        *,
        later: tuple[tuple[float, list[str]], ...] = (),
        kill_at: tuple[int, ...] = (),
    ) -> None:
        universe = self._universe = Universe(number)
        universe.loop.steps_max = STEPS_MAX
        self._folder = folder
        self._config = config
        self._prompts = prompts
        self._later = later
        self._kill_at = list(kill_at)
        self._mishaps = Mishaps(universe, 0, 0)
        self._engines = EngineRoom(universe, 0.0001)
        self._network = Network(universe, 0.0001)
        self._ids = universe.ids("tasks")
        self.starts = 0
        self._server: Process | None = None
        self._store = self._open()
        self.seconds = 0.0
        """From the start until everything had ended."""

    def run(self, *, until_server_ends: bool = False) -> None:
        main = self._until_server_ends if until_server_ends else self._main
        run_virtually(lambda _: main(), self._universe.loop)
        self.rows = [
            Row(*row)
            for row in self._store.cx.execute(
                "SELECT p.body, state, failures, error FROM task JOIN payload p ON p.task = seq"
            )
        ]

    @property
    def events(self) -> list[tuple[int, str]]:
        """`(task, state)` of every transition, in order; tasks are numbered from 1."""
        return self._store.cx.execute("SELECT task, to_state FROM event ORDER BY seq").fetchall()

    @property
    def restarts(self) -> int:
        """Engines that were started beyond the first one of each replica and server."""
        return self._engines.launched - self.starts * self._config.engine.replicas

    def check(self) -> None:
        """Every poison is dead with the evidence, everybody else is answered and uncharged."""
        for row in self.rows:
            if row.poison:
                assert (row.state, row.failures) == ("dead", 1), row
                assert row.error is not None
                assert '"code":"poison"' in row.error
                assert "deaths" in row.error
                assert ("hung" if HANG in row.prompt else "host process ended") in row.error
            else:
                assert (row.state, row.failures, row.error) == ("succeeded", 0, None), row

    async def _main(self) -> None:
        await self._insert(self._prompts)
        self._start()
        with anyio.fail_after(LIVENESS_S):
            for pause_s, prompts in self._later:
                await anyio.sleep(pause_s)
                await self._restart(prompts)
            while self._open_tasks():
                await anyio.sleep(0.01)
                if self._kill_at and self._engines.launched >= self._kill_at[0]:
                    del self._kill_at[0]
                    await self._restart()
        self.seconds = self._universe.loop.time()

    async def _until_server_ends(self) -> None:
        await self._insert(self._prompts)
        self._start()
        assert self._server is not None
        with anyio.fail_after(LIVENESS_S):
            await self._universe.done(self._server)

    def _open_tasks(self) -> int:
        (count,) = self._store.cx.execute(
            "SELECT count(*) FROM task WHERE finished_at IS NULL"
        ).fetchone()
        return count

    async def _insert(self, prompts: Sequence[str]) -> None:
        tasks = tuple(TaskSpec(self._ids.mint(), prompt=prompt) for prompt in prompts)
        await self._store.commit([InsertTasks(tasks)], self._universe.clock.wall_ms())

    def _open(self) -> SimulatedStore:
        path = self._folder / f"queue-{self.starts}.sqlite3"
        store = SimulatedStore(self._universe, path, 0.003, self._mishaps, power_may_fail=False)
        store.open_now()
        return store

    def _start(self) -> None:
        universe, store = self._universe, self._store
        self.starts += 1
        number = self.starts

        async def serve() -> None:
            world = World(
                clock=universe.clock,
                rng=universe.rng(f"server {number}"),
                ids=universe.ids(f"server {number}"),
                store=store,
                listen=self._network.listen,
                launch=self._engines.launcher,
                signal=self._engines.signal,
            )
            identity = Identity("0", number, "simulated", "none", str(self._folder))
            await Tree(self._config, identity, world).run()

        self._server = universe.spawn(f"server#{number}", serve)

    async def _restart(self, prompts: Sequence[str] = ()) -> None:
        """kill -9, and start it again on what is on the disk, and these."""
        assert self._server is not None
        self._server.kill()
        self._store.die(self._folder / f"queue-{self.starts}.sqlite3", power_lost=False)
        self._store = self._open()
        await self._insert(prompts)
        self._start()


def config(slots: int, *, replicas: int = 1, step_ms: float = 5) -> Config:
    return Config(
        engine=EngineConfig(
            kind="simulated",
            max_num_seqs=slots,
            replicas=replicas,
            faults=True,
            watchdog_s=2,
            simulated=SimulatedConfig(
                load_s=0.2, step_ms=step_ms, prefill_tok_s=0, output_tokens=4
            ),
        ),
        batch=BatchConfig(window_ms=10),
    )


def prompts(count: int, poisons: int, mark: str, rng: random.Random) -> list[str]:
    bad = set(rng.sample(range(count), poisons))
    return [f"prompt {number}{f' {mark}' * (number in bad)}" for number in range(count)]


@pytest.mark.parametrize("mark", [CRASH, HANG])
@pytest.mark.parametrize(("poisons", "number"), [(1, 0), (1, 1), (3, 2)])
def test_poison_among_a_thousand_costs_twelve_restarts_at_most_and_no_innocent_a_failure(
    poisons: int, number: int, mark: str, tmp_path: Path
) -> None:
    rng = random.Random(number)
    ward = Ward(number, tmp_path, config(256), prompts(1000, poisons, mark, rng))
    ward.run()
    ward.check()
    assert sum(row.poison for row in ward.rows) == poisons
    assert ward.restarts <= deaths_max(256) * poisons <= 12 * poisons
    for_each_death_s = 0.4 + 0.2 + (3 if mark == HANG else 0)
    breaker_s = 10 * (poisons - 1)
    assert ward.seconds <= for_each_death_s * ward.restarts + breaker_s + 2


def test_others_are_served_while_suspects_are_tried(tmp_path: Path) -> None:
    everybody = prompts(1000, 0, CRASH, random.Random(0))
    ward = Ward(0, tmp_path, config(256), [f"first {CRASH}", *everybody[1:]])
    ward.run()
    ward.check()
    served = 0
    served_at_deaths: list[int] = []
    for number, state in ward.events:
        served += state == "succeeded" and number > 256
        if number == 1 and state == "pending":
            served_at_deaths.append(served)
    # It was handed in, two deaths made it a suspect, and the first trial came at once. Then each
    # trial let others in, of whom there were 744 that had never been with it.
    assert served_at_deaths[:4] == [0] * 4
    assert served_at_deaths[4:7] == [256, 512, 744]


def test_a_queue_full_of_poison_does_not_end_the_server(tmp_path: Path) -> None:
    ward = Ward(4, tmp_path, config(64), prompts(400, 40, CRASH, random.Random(4)))
    ward.run()
    ward.check()
    assert ward.starts == 1
    assert ward.restarts <= deaths_max(64) * 40


def test_an_engine_that_dies_of_everything_ends_the_server_and_not_the_queue(
    tmp_path: Path,
) -> None:
    ward = Ward(0, tmp_path, config(8), prompts(1000, 1000, CRASH, random.Random(0)))
    ward.run(until_server_ends=True)
    assert sum(row.state == "dead" for row in ward.rows) < 40
    assert all(row.failures == 0 for row in ward.rows if row.state != "dead")


@pytest.mark.parametrize("number", range(30))
def test_poison_that_comes_in_the_middle_of_an_isolation_is_isolated_too(
    number: int, tmp_path: Path
) -> None:
    """On one to three engines, and the server is killed meanwhile."""
    rng = random.Random(number)
    slots, replicas, mark = rng.choice([1, 3, 16]), rng.choice([1, 2, 3]), rng.choice([CRASH, HANG])
    batches = [prompts(60, rng.randint(0, 3), mark, rng) for _ in range(3)]
    ward = Ward(
        *(number, tmp_path, config(slots, replicas=replicas), batches[0]),
        later=tuple((rng.uniform(0.1, 4), batch) for batch in batches[1:]),
        kill_at=tuple(sorted(rng.randint(2, 12) for _ in range(rng.randint(0, 3)))),
    )
    ward.run()
    ward.check()
    poisons = sum(row.poison for row in ward.rows)
    # A server that is killed forgets the deaths that it had no time to record, one an engine.
    forgotten = (ward.starts - 1) * replicas
    assert ward.restarts <= poisons * deaths_max(slots) + forgotten


@pytest.mark.parametrize("kill_at", range(2, 11))
def test_a_server_killed_in_the_middle_goes_on_where_it_was(kill_at: int, tmp_path: Path) -> None:
    rng = random.Random(kill_at)
    ward = Ward(*(kill_at, tmp_path, config(64), prompts(200, 1, CRASH, rng)), kill_at=(kill_at,))
    ward.run()
    ward.check()
    assert ward.restarts <= deaths_max(64) + 1
