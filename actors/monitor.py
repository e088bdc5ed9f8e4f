"""The monitor: one picture of the whole, for whoever asks.

Owns nothing but where to look. Accepts `GetStatus` and answers with a `Status`, put together from
the `statistics()` of the supervisors, the persister, the batchers and the engines; accepts
`GetTenants`. It changes nothing and loses nothing when it dies. What it tells of single tasks and
of tenants is bounded, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, assert_never

import msgspec

from actors.messages import GetStatus, GetTenants, MonitorMessage
from actors.serving import Serving
from actors.totals import Totals
from autoglm.status import (
    ActorStatus,
    BatchStatus,
    EngineStatus,
    RecentFailure,
    RunningTask,
    ServerStatus,
    Status,
)
from autoglm.types import TaskState
from model.hosted import HostedEngine
from model.hosts import HostState
from runtime.actor import Actor
from runtime.clock import Clock
from runtime.mailbox import Mailbox
from runtime.store.protocol import ClaimedTask
from runtime.supervision import ChildState, Supervised

CAPACITY = 256
TASKS_MAX = 10
"""Tasks that are told of one by one."""
TEXT_CHARS_MAX = 80


class Sources:
    """Where the monitor looks; filled in by the tree."""

    def __init__(
        self,
        server: Callable[[], ServerStatus],
        tasks: Callable[[], dict[TaskState, int]],
        actors: Sequence[Supervised],
        engines: Sequence[tuple[HostedEngine[Any], Supervised]],
        totals: Sequence[Totals],
        serving: Serving,
        model: str,
        clock: Clock,
    ) -> None:
        self.server = server
        self.tasks = tasks
        self.actors = actors
        self.engines = engines
        self.totals = totals
        self.serving = serving
        self.model = model
        self.clock = clock


class Monitor(Actor[MonitorMessage]):
    def __init__(self, mailbox: Mailbox[MonitorMessage], sources: Sources) -> None:
        super().__init__(mailbox)
        self._sources = sources

    def handle(self, message: MonitorMessage) -> None:
        match message:
            case GetStatus(reply):
                reply.send(self.status())
            case GetTenants(reply):
                reply.send(self._sources.serving.tenants())
            case _:
                assert_never(message)

    def status(self) -> Status:
        sources = self._sources
        tasks = sources.tasks()
        queues, tenants = sources.serving.summary()
        return Status(
            server=sources.server(),
            tasks={state.value: tasks.get(state, 0) for state in TaskState},
            engines=tuple(self._engine_status(engine, child) for engine, child in sources.engines),
            actors=tuple(_actor_status(child) for child in sources.actors),
            batches=_batch_status(sources.totals),
            queues=queues,
            tenants=tenants,
            slowest=self._slowest(),
            failures=_failures(sources.totals),
        )

    def _slowest(self) -> tuple[RunningTask, ...]:
        """Those that have run longest, longest first."""
        now = self._sources.clock.monotonic()
        oldest = [
            (flight.since, engine.name, flight.task)
            for engine, _ in self._sources.engines
            for flight in islice((f for f in engine.flights() if f.ended is None), TASKS_MAX)
        ]
        oldest.sort(key=lambda each: each[0])
        return tuple(_running(task, engine, now - s) for s, engine, task in oldest[:TASKS_MAX])

    def _engine_status(self, engine: HostedEngine[Any], child: Supervised) -> EngineStatus:
        seen = engine.statistics()
        state = "down" if child.state is ChildState.HELD else seen.state.value
        waiting = seen.load.waiting
        return EngineStatus(
            id=engine.name,
            state=state,
            breaker=child.breaker.state.value,
            model=seen.info.model if seen.info else self._sources.model,
            running=max(0, seen.flying - waiting),
            waiting=waiting,
            slots=seen.info.slots if seen.info else 0,
            tokens_per_s=round(seen.tokens_per_s, 1),
            pid=seen.pid,
            choices=seen.info.choices if seen.info else (),
            error=seen.last_error if seen.state is not HostState.READY else None,
            kv_usage=round(seen.load.kv_usage, 4),
            prompt_tokens=seen.taken.all,
            cached_tokens=seen.taken.cached,
            restarts=child.restarts,
        )


def told_to(tenant: str | None, status: Status) -> Status:
    """What who speaks for `tenant` may know of it; None: the operator."""
    if tenant is None:
        return status
    return msgspec.structs.replace(
        status,
        tenants=tuple(each for each in status.tenants if each.name == tenant),
        slowest=tuple(each for each in status.slowest if each.tenant == tenant),
        failures=tuple(each for each in status.failures if each.tenant == tenant),
    )


def _actor_status(child: Supervised) -> ActorStatus:
    seen = child.statistics()
    return ActorStatus(
        name=seen.name,
        state=seen.state.value,
        restarts=seen.restarts,
        breaker=seen.breaker.value,
        mailbox=seen.mailbox,
        processed=seen.processed,
        error=seen.last_error,
    )


def _running(task: ClaimedTask, engine: str, ran_s: float) -> RunningTask:
    queue, tenant = task.lane
    text = task.prompt if task.prompt is not None else task.messages[-1].content
    ran_s = round(max(0.0, ran_s), 1)
    known = (task.id, tenant, queue, task.priority, task.attempt, engine, ran_s)
    return RunningTask(*known, text[:TEXT_CHARS_MAX])


def _failures(totals: Sequence[Totals]) -> tuple[RecentFailure, ...]:
    recent = [failure for total in totals for failure in total.failures.recent]
    return tuple(sorted(recent, key=lambda each: each.at, reverse=True)[:TASKS_MAX])


def _batch_status(totals: Sequence[Totals]) -> BatchStatus:
    count = sum(total.batches for total in totals)
    requests = sum(total.requests for total in totals)
    triggers: dict[str, int] = {"size": 0, "window": 0, "idle": 0}
    for total in totals:
        for trigger, times in total.triggers.items():
            triggers[trigger] = triggers.get(trigger, 0) + times
    return BatchStatus(count, round(requests / count, 2) if count else 0.0, triggers)
