"""The tree: who supervises whom, and who talks to whom.

    root (one_for_one):  frontdoor  monitor  reader  retention  engines (one_for_one)  core
                         drills, where they are allowed; watchdog, if somebody watches
    core (rest_for_one): persister → scheduler → batchers (one_for_one)

Sockets and engines survive a restart of the core. Everything that is not the same in a simulation
(time, randomness, ids, store, transport, engine hosts) is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from actors import batcher as batching
from actors import drills as drilling
from actors import frontdoor as fronting
from actors import monitor as monitoring
from actors import persister as persisting
from actors import reader as reading
from actors import retention as retaining
from actors import scheduler as scheduling
from actors import serving
from actors.addresses import Addresses
from actors.breakers import BreakerMemory
from actors.drillparts import Parts
from actors.messages import Drain, TextsArrived
from actors.policy.agenda import Agenda
from actors.policy.pace import Pace
from actors.policy.priority import PriorityRules
from actors.policy.rates import Rates
from actors.policy.refusal import refusal
from actors.policy.rules import ConfiguredRules
from actors.queues import Queues
from actors.quotas import Quotas
from actors.watchdog import Watchdog
from actors.world import Identity, World
from autoglm.errors import AutoGLMError
from autoglm.status import ServerStatus
from autoglm.types import TaskState
from model.engine import Progress
from model.hosted import HostedEngine
from runtime.actor import Child
from runtime.clock import SteadyWall
from runtime.config import Config
from runtime.mailbox import Mailbox
from runtime.sdnotify import STOPPING, ServiceManager, status
from runtime.store.health import Health
from runtime.store.protocol import ClaimedTask, FetchSummary, PutBack, StoreDamaged, Write
from runtime.supervision import ChildSpec, Strategy, Supervised, Supervisor

_QUIET_CHECK_S = 0.02
_HAND_OVER_S = 2.0  # what runs when the time to drain is over only has to stop


class Tree:
    """One server: built, then `run` until cancelled or escalated."""

    def __init__(self, config: Config, identity: Identity, world: World) -> None:
        self._config = config
        self._identity = identity
        self._world = world
        self._wall = SteadyWall(world.clock)
        self._started_at = world.clock.wall_ms()
        self._draining = False
        self.health = Health()
        self._persister: persisting.Persister | None = None
        self._scheduler: scheduling.Scheduler | None = None

        replicas = range(1, config.engine.replicas + 1)
        self.engines: list[HostedEngine[ClaimedTask]] = [
            HostedEngine(
                f"engine-{number}",
                config.engine,
                world.launch(f"engine-{number}"),
                world.clock,
                self._on_text,
                config.supervision.engines,
            )
            for number in replicas
        ]
        self._at = Addresses([f"batcher-{number}" for number in replicas])
        self._memory = BreakerMemory(
            config.engine, self._at.engine_lane, world.clock, self._wall.now_ms
        )
        self._drill = drilling.Memory()
        self._totals = [batching.Totals() for _ in replicas]
        self._build()

    async def run(self) -> None:
        """Until cancelled. Raises StoreError at the start, Escalation when a child is hopeless."""
        await self.put_back()
        await self._memory.recall(self._world.store, self._engine_hosts.children)
        summary = await self._world.store.query(FetchSummary())
        self._queues.recalled(summary.queues, summary.paused)
        await self._root.run(lambda: None)

    async def drain(self, timeout_s: float) -> bool:
        """Refuse new work and let running work finish. Whether all of it did in time."""
        self._draining = True
        if self._world.manager is not None:
            self._world.manager.notify(STOPPING, status("draining"))
        with anyio.move_on_after(timeout_s):
            while self.health.damage is None:
                # Again each time, for who was restarted meanwhile, or had no room.
                for mailbox in (self._at.scheduler, *self._at.batchers.values()):
                    mailbox.put_nowait(Drain())
                if not any(engine.flights() for engine in self.engines):
                    return True
                await self._world.clock.sleep(_QUIET_CHECK_S)
        if self._config.engine.checkpoint_tokens is not None:
            await self._hand_over()
        return False

    async def _hand_over(self) -> None:
        """What still runs goes back with what it has, so that it goes on from there."""
        with anyio.move_on_after(_HAND_OVER_S):
            while self.health.damage is None and any(each.flights() for each in self.engines):
                for mailbox in self._at.batchers.values():
                    mailbox.put_nowait(Drain(running_too=True))
                await self._world.clock.sleep(_QUIET_CHECK_S)

    async def put_back(self) -> None:
        """Before and after `run` nobody owns anything: what was running goes back, uncharged.

        Raises StoreError.
        """
        try:
            back = PutBack(None, pause_max_ms=math.ceil(self._config.retry.cap_ms))
            await self._world.store.commit([back, self._queues.begin()], self._wall.now_ms())
        except StoreDamaged as error:
            self.health.damaged(error)
            raise

    def actors(self) -> Sequence[Supervised]:
        """Everyone under supervision who is no supervisor, in the order of the picture above."""
        return [
            child
            for supervisor in (self._root, self._core, self._batchers)
            for child in supervisor.children
            if child.spec.mailboxes
        ]

    # ── building ─────────────────────────────────────────────────────────────────────────────

    def _build(self) -> None:
        clock, rng, at = self._world.clock, self._world.rng, self._at

        config = self._config
        breaker, start_s = config.supervision.actors, config.supervision.start_timeout_s

        def supervisor(
            name: str, strategy: Strategy, specs: list[ChildSpec], *, replicas: bool = False
        ) -> Supervisor:
            return Supervisor(name, strategy, specs, clock, rng, replicas=replicas)

        def actor(name: str, start: Callable[[], Child], *mailboxes: Mailbox[Any]) -> ChildSpec:
            return ChildSpec(name, start, mailboxes, breaker, start_s)

        # These wait for the store where it is blocked, which is no failure of theirs.
        def patient(name: str, start: Callable[[], Child], *mailboxes: Mailbox[Any]) -> ChildSpec:
            return ChildSpec(name, start, mailboxes, breaker)

        self._batchers = supervisor(
            "batchers",
            Strategy.ONE_FOR_ONE,
            [self._batcher_spec(number) for number in range(len(self.engines))],
        )
        self._core = supervisor(
            "core",
            Strategy.REST_FOR_ONE,
            [
                patient("persister", self._start_persister, at.engine_lane, at.intake),
                actor("scheduler", self._start_scheduler, at.scheduler),
                patient("batchers", lambda: self._batchers),
            ],
        )
        self._engine_hosts = supervisor(
            "engines",
            Strategy.ONE_FOR_ONE,
            [
                ChildSpec(
                    engine.name,
                    lambda engine=engine: engine,
                    breaker=config.supervision.engines,
                    on_breaker=lambda breaker, name=engine.name: self._memory.note(name, breaker),
                )
                for engine in self.engines
            ],
            replicas=True,
        )
        self._pace = Pace()
        self._queues = Queues(config.queues, config.engine.what, self._engine_hosts.children, clock)
        self._rates = Rates(config.tenants, clock.monotonic())
        self._quotas = Quotas(config, self._rates, clock)
        manager = self._world.manager
        self._root = supervisor(
            "root",
            Strategy.ONE_FOR_ONE,
            [
                actor("frontdoor", self._start_frontdoor, at.frontdoor),
                actor("monitor", self._start_monitor, at.monitor),
                actor("reader", self._start_reader, at.reader),
                actor("retention", self._start_retention, at.retention),
                patient("engines", lambda: self._engine_hosts),
                patient("core", lambda: self._core),
                *([actor("drills", self._start_drills, at.drills)] if config.drills else []),
                *([actor("watchdog", lambda: self._start_watchdog(manager))] if manager else []),
            ],
        )

    def _start_frontdoor(self) -> fronting.Frontdoor:
        return fronting.Frontdoor(
            self._at.frontdoor,
            self._at.frontdoor_missed,
            self._world.listen,
            self._at.intake,
            self._at.reader,
            self._at.monitor,
            self._identity.welcome,
            self._refusing,
            self._world.ids,
            self._queues,
            PriorityRules(self._config),
            self._pace,
            self._world.clock,
            self._at.drills if self._config.drills else None,
        )

    def _start_drills(self) -> drilling.Drills:
        world = self._world
        parts = Parts(
            engines=list(zip(self.engines, self._engine_hosts.children, strict=True)),
            actors=self.actors(),
            store=world.store,
            health=self.health,
            signal=world.signal,
        )
        return drilling.Drills(
            *(self._at.drills, self._drill, parts, world.clock, self._wall.now_ms)
        )

    def _start_monitor(self) -> monitoring.Monitor:
        sources = monitoring.Sources(
            server=self._server_status,
            tasks=self._task_counts,
            actors=self.actors(),
            engines=list(zip(self.engines, self._engine_hosts.children, strict=True)),
            totals=self._totals,
            serving=self._serving(),
            model=self._identity.model,
            clock=self._world.clock,
        )
        return monitoring.Monitor(self._at.monitor, sources)

    def _serving(self) -> serving.Serving:
        sources = serving.Sources(
            queues=self._queues,
            rates=self._rates,
            pace=self._pace,
            engines=list(zip(self.engines, self._engine_hosts.children, strict=True)),
            waiting=lambda: self._persister.statistics().waiting if self._persister else {},
            running=lambda: self._scheduler.statistics().lanes if self._scheduler else {},
        )
        return serving.Serving(self._config, sources, self._world.clock)

    def _start_watchdog(self, manager: ServiceManager) -> Watchdog:
        may_wait = (*self._core.children, *self._batchers.children)
        store, clock = self._world.store, self._world.clock
        return Watchdog(
            *(self.actors(), may_wait, store, self.health, self._server_status, manager, clock)
        )

    def _start_reader(self) -> reading.Reader:
        return reading.Reader(self._at.reader, self._world.store, self.health)

    def _start_retention(self) -> retaining.Retention:
        return retaining.Retention(
            *(self._at.retention, self._at.chores, self._at.intake),
            *(self._config.retention, self._world.clock, self._wall.now_ms),
        )

    def _start_persister(self) -> persisting.Persister:
        self._persister = persisting.Persister(
            self._at.engine_lane,
            self._at.intake,
            self._world.store,
            self._at.outlets,
            self.health,
            self._queues,
            self._quotas,
            self._world.clock,
            self._wall.now_ms,
        )
        return self._persister

    def _start_scheduler(self) -> scheduling.Scheduler:
        self._scheduler = scheduling.Scheduler(
            self._at.scheduler,
            self._at.scheduler_missed,
            self._at.engine_lane,
            self._at.reader,
            self._at.batchers,
            Agenda(
                self._config.scheduler.policy,
                ConfiguredRules(self._config, self._queues.paused),
                self._rates,
            ),
            self._world.clock,
            self._pace,
        )
        return self._scheduler

    def _batcher_spec(self, number: int) -> ChildSpec:
        name = f"batcher-{number + 1}"
        mailbox = self._at.batchers[name]
        return ChildSpec(
            name,
            lambda: batching.Batcher(
                name,
                mailbox,
                self.engines[number],
                self._at.engine_lane,
                self._at.scheduler,
                self._config,
                self._world.clock,
                self._world.rng,
                self._totals[number],
            ),
            (mailbox,),
            self._config.supervision.actors,
        )

    # ── what actors ask of the tree ──────────────────────────────────────────────────────────

    def _on_text(self, pieces: Sequence[Progress]) -> None:
        # Chunks are provisional: a frontdoor that can't take them now does without.
        self._at.frontdoor.put_nowait(TextsArrived(tuple(pieces)))

    def _refusing(self, write: Write) -> AutoGLMError | None:
        now, persister = self._world.clock.monotonic(), self._core.children[0]
        return refusal(write, now, self.health, persister, draining=self._draining)

    def _server_status(self) -> ServerStatus:
        state = "draining" if self._draining else "running"
        return self._identity.status(self._started_at, state, self.health.trouble)

    def _task_counts(self) -> dict[TaskState, int]:
        return self._persister.statistics().tasks if self._persister else {}
