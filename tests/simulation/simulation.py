"""One seed from beginning to end: the real tree, real clients, and everything that can go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import msgspec

from actors import (
    batcher,
    connection,
    frontdoor,
    monitor,
    persister,
    reader,
    retention,
    scheduler,
    telling,
    tree,
)
from actors.policy import backlog
from actors.policy.agenda import Agenda
from actors.policy.poison import deaths_max
from actors.tree import Tree
from actors.world import Identity, World
from autoglm import wire
from runtime import actor, supervision
from runtime.mailbox import Mailbox
from runtime.store import blocked, endings, steering, urgency
from runtime.supervision import Supervisor
from tests.simulation import net
from tests.simulation.check import violations
from tests.simulation.degraded import WatchedStore
from tests.simulation.disk import Mishaps, SimulatedStore
from tests.simulation.engines import EngineRoom
from tests.simulation.loop import Deadlock, Process, StepsExceeded, run_virtually
from tests.simulation.manager import SimulatedManager
from tests.simulation.net import Network
from tests.simulation.people import History, Operator, Person, Vandal
from tests.simulation.plan import POISON, Plan
from tests.simulation.restarts import RestartWatch
from tests.simulation.steering import Steward
from tests.simulation.world import Universe

LIVENESS_S = 600
"""Virtual time within which everything must be answered."""
WATCHDOG_S = 6.0
"""A server that is not heard of for so long would be started anew."""
RESTARTS_MAX = 200
PLANTED = ("InjectedFault", "StoreError", "HostDied", "HostHung", "Excused", "PutBackFailed")
"""What children may fail of: faults of ours, and what follows from them."""
CAPACITIES = (
    (persister, "ENGINE_LANE_CAPACITY"),
    (persister, "INTAKE_CAPACITY"),
    (reader, "CAPACITY"),
    (scheduler, "CAPACITY"),
    (frontdoor, "CAPACITY"),
    (monitor, "CAPACITY"),
    (batcher, "CAPACITY"),
    (retention, "CAPACITY"),
)

BOUNDS = (
    (actor, "BATCH_MAX"),
    (persister, "COMMIT_MAX"),
    (scheduler, "CLAIM_MAX"),
    (telling, "LOOKUP_MAX"),
    (connection, "PENDING_MAX"),
    (connection, "CHUNK_OUTBOX_BYTES_MAX"),
    (wire, "PAGE_MAX"),
    (net, "PIPE_BYTES_MAX"),
)


class Report(msgspec.Struct, frozen=True):
    """What a seed came to."""

    seed: int
    digest: str
    steps: int
    crashes: int
    tasks: int
    violations: tuple[str, ...]
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = "\n  ".join(self.violations) or "all is well"
        return (
            f"seed {self.seed}: {self.steps} steps, {self.crashes} crashes, {self.tasks} tasks\n"
            f"  {lines}\n  replay: python -P -m tests.simulation --seed {self.seed}"
        )


def simulate(seed: int, *, trace: bool = False) -> Report:
    """Run one seed. Never raises for what it finds."""
    scratch = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=scratch if scratch.is_dir() else None))
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return _Simulation(seed, folder, trace=trace).run()
    finally:
        logging.disable(level)
        shutil.rmtree(folder, ignore_errors=True)


class _Simulation:
    def __init__(self, seed: int, folder: Path, *, trace: bool) -> None:
        self._folder = folder
        self.universe = universe = Universe(seed)
        self._trace = trace
        self.plan = plan = Plan(universe)
        self._rng = universe.rng("faults")
        self._history = History()
        self._network = Network(universe, plan.net_delay_s, plan.cuts)
        self._mishaps = Mishaps(universe, plan.raises, plan.refusals)
        self._engines = EngineRoom(universe, plan.net_delay_s)
        self._engine_faults = 0
        self._own_failures: list[str] = []
        self._restarts = RestartWatch(universe.clock)
        self._starts = 0
        self._drains = plan.drains
        self._kills = plan.server_kills
        self._server: Process | None = None
        self._managers: list[SimulatedManager] = []
        """One for each start."""
        self._store: SimulatedStore
        self._next_path = self._path(0)
        self._over = False

    def run(self) -> Report:
        found: list[str] = []
        with self._planted():
            try:
                run_virtually(lambda _: self._main(), self.universe.loop)
            except (Deadlock, StepsExceeded, TimeoutError) as error:
                found.append(f"liveness: {type(error).__name__} {error}")
            except Exception as error:
                found.append(f"{type(error).__name__}: {error}")
        self._over = True
        if self._server is not None and not self._server.dead:
            self._managers[-1].look()
        store = self._open_last()
        found += violations(store.cx, self.plan, self._history)
        found += self._too_many_engines(store.cx)
        found += self._own_failures
        found += self._restarts.found
        found += [each for manager in self._managers for each in manager.found]
        (tasks,) = store.cx.execute("SELECT count(*) FROM task").fetchone()
        store.discard()
        universe = self.universe
        report = Report(
            *(universe.seed, universe.digest, universe.loop.steps, self._starts - 1, tasks),
            tuple(found),
            tuple(universe.trace) if self._trace else (),
        )
        universe.trace.clear()  # a world is full of circles: it goes when the collector comes by
        return report

    async def _main(self) -> None:
        self._start()
        plan, history = self.plan, self._history
        people = [Person(self.universe, plan, name, history) for name in plan.people]
        with anyio.fail_after(LIVENESS_S):
            async with anyio.create_task_group() as group:
                for person in people:
                    group.start_soon(person.live)
                if plan.vandal:
                    group.start_soon(Vandal(self.universe, self._network).live)
                if plan.degrade:
                    group.start_soon(Operator(self.universe, history).live)
                    group.start_soon(self._open_breakers)
                if plan.steered:
                    group.start_soon(Steward(self.universe, history, people).live)
                group.start_soon(self._move_the_clock)
                await self._break_engines()
        self._over = True

    # ── the server ───────────────────────────────────────────────────────────────────────────

    def _start(self) -> None:
        if self._over:
            return
        self._starts += 1
        if self._starts > RESTARTS_MAX:
            raise AssertionError("the server never stays up")
        plan, universe = self.plan, self.universe
        store = self._store = SimulatedStore(
            universe,
            self._next_path,
            plan.store_delay_s,
            self._mishaps,
            plan.checkpoints,
            power_may_fail=plan.power_losses,
            policy=plan.config.scheduler.policy,
        )
        store.open_now()
        self._next_path = self._path(self._starts)
        self._managers.append(SimulatedManager(universe.clock, WATCHDOG_S))
        server = self._server = universe.spawn(f"server#{self._starts}", lambda: self._serve(store))
        server.on_death.append(self._after_death)
        if self._kills:
            self._kills -= 1
            early, middle = 10 ** self._rng.uniform(0.5, 3.7), self._rng.uniform(100, 2500)
            steps = int(self._rng.choice([early, middle]))
            universe.kill_at[server] = (steps, server.kill)

    async def _serve(self, store: SimulatedStore) -> None:
        universe, number = self.universe, self._starts
        watched = WatchedStore(store, self._own_failures)
        world = World(
            clock=universe.clock,
            rng=universe.rng(f"server {number}"),
            ids=universe.ids(f"server {number}"),
            store=watched,
            listen=self._network.listen,
            launch=self._engines.launcher,
            signal=self._engines.signal,
            manager=self._managers[-1] if self.plan.watched else None,
        )
        identity = Identity("0", number, "simulated", "none", str(self._folder))
        server = watched.tree = Tree(self.plan.config_at_start(number), identity, world)
        async with anyio.create_task_group() as group:
            group.start_soon(server.run)
            if not self._drains:
                return
            self._drains -= 1
            await universe.clock.sleep(self._rng.uniform(0.05, 3))
            await server.drain(self._rng.choice([0, 0.1, 30]))
            group.cancel_scope.cancel()
        await server.put_back()

    def _after_death(self) -> None:
        """Whatever ended it: the disk is as it is, and somebody starts it again."""
        self._managers[-1].look()
        if self._over:
            return
        power_lost = self.plan.power_losses and self._rng.random() < 0.5
        lost = self._store.die(self._next_path, power_lost=power_lost)
        self.universe.note("server died, sectors lost:", lost)
        self.universe.clock.jump(self._rng.choice(self.plan.clock_jumps))
        self.universe.later(self._rng.uniform(0.01, 1), self._start)

    def _open_last(self) -> SimulatedStore:
        """The store as the last process left it, or would have found it."""
        if not self._next_path.exists():
            return self._store  # it lives, or died when all was over
        with contextlib.suppress(Exception):
            self._store.discard()
        store = SimulatedStore(self.universe, self._next_path, 0, self._mishaps)
        store.open_now()
        return store

    def _path(self, number: int) -> Path:
        return self._folder / f"queue-{number}.sqlite3"

    # ── faults ───────────────────────────────────────────────────────────────────────────────

    async def _break_engines(self) -> None:
        for _ in range(self.plan.engine_deaths):
            await asyncio.sleep(self._rng.uniform(0.05, 2))
            deed = self._rng.choice([self._engines.kill_one, self._engines.hang_one])
            self._engine_faults += deed(self._rng.random())

    async def _open_breakers(self) -> None:
        """All engines die while nothing is in them, so that nobody becomes a suspect."""
        rng = self.universe.rng("breakers")
        for _ in range(rng.randint(1, 6)):
            await asyncio.sleep(rng.uniform(0, 2.5))
            while not self._any_task("running") and self._engines.kill_one(0):
                self._engine_faults += 1

    async def _move_the_clock(self) -> None:
        rng = self.universe.rng("clock")
        for _ in range(self.plan.jumps_while_up):
            await asyncio.sleep(rng.uniform(0.05, 2))
            for _ in range(400):  # best when something is about to be due
                if self._any_task("retrying"):
                    break
                await asyncio.sleep(0.01)
            self.universe.clock.jump(rng.choice(self.plan.clock_jumps))

    def _any_task(self, state: str) -> bool:
        if self._server is None or self._server.dead:
            return False
        query = "SELECT EXISTS (SELECT 1 FROM task WHERE state = ?)"
        return bool(self._store.cx.execute(query, (state,)).fetchone()[0])

    def _too_many_engines(self, cx: sqlite3.Connection) -> Iterator[str]:
        """Each start of a server costs one per replica, each fault one, and each poison what the
        policy says, once more whenever somebody retries it.
        """
        plan = self.plan
        poison = sum(any(mark in prompt for mark in POISON) for prompt in plan.prompts())
        # A server that dies forgets a death that was not recorded yet.
        bound = self._starts * (plan.replicas_max + poison)
        retried = cx.execute(
            "SELECT p.body FROM event e JOIN payload p ON p.task = e.task"
            " WHERE e.from_state = 'dead' AND e.to_state = 'pending'"
        ).fetchall()
        retries = sum(any(mark in body for mark in POISON) for (body,) in retried)
        bound += self._engine_faults + deaths_max(plan.config.engine.max_num_seqs) * (
            poison + retries
        )
        if self._engines.launched > bound:
            yield f"{self._engines.launched} engines were started, {bound} can be explained"

    @contextlib.contextmanager
    def _planted(self) -> Generator[None]:
        """The world around the code: bounds, the socket, and actors that raise at their awaits."""
        with contextlib.ExitStack() as stack:
            if self.plan.tight:
                for module, name in CAPACITIES:
                    stack.enter_context(patch.object(module, name, 1))
            if self.plan.all_ones:
                for module, name in BOUNDS:
                    stack.enter_context(patch.object(module, name, 1))
            if (keys_max := self.plan.keys_max) is not None:
                narrow = functools.partial(Agenda, keys_max=keys_max)
                stack.enter_context(patch.object(tree, "Agenda", narrow))
                stack.enter_context(patch.object(backlog, "LANE_KEYS_MIN", 1))
                stack.enter_context(patch.object(backlog, "LANES_PER_READ", 2))
            stack.enter_context(patch.object(endings, "CANCEL_SLICE", 2))
            if self.plan.small_slices:
                stack.enter_context(patch.object(blocked, "TELL_SLICE", 1))
                stack.enter_context(patch.object(urgency, "HURRY_SLICE", 1))
            stack.enter_context(patch.object(steering, "SLICE", 2))
            stack.enter_context(patch.object(supervision, "log", self))
            watched = self._restarts.around(Supervisor._run_once)  # pyright: ignore
            stack.enter_context(patch.object(Supervisor, "_run_once", watched))
            stack.enter_context(patch.object(anyio, "connect_unix", self._network.connect))
            for name in ("put", "drain"):
                original = getattr(Mailbox, name)
                stack.enter_context(patch.object(Mailbox, name, self._struck(original)))
            yield

    def warning(self, _: str, name: str, what: str, exc_info: Exception) -> None:
        """In place of the supervisors' log: nobody fails for reasons of his own."""
        self.universe.note(name, "failed:", what)
        if self.universe.loop.is_running() and not what.startswith(PLANTED):
            self._own_failures.append(f"{name} failed: {what}")
            self.universe.problems.append(exc_info)

    def _struck(self, original: Callable[..., Any]) -> Callable[..., Any]:
        async def call(mailbox: Mailbox[Any], *args: Any) -> Any:
            answer = await original(mailbox, *args)
            if mailbox.statistics().reserved < 0:
                self._own_failures.append(f"{mailbox} was answered more often than it asked")
            self._mishaps.strike(mailbox)
            return answer

        return call
