"""How each queue and each tenant is served at the moment, put together for who asks.

Looks at what the persister, the scheduler and the engines know, and changes nothing of it. All of
it is in memory, so it is told also while the store is blocked.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from actors.policy.degrade import outage
from actors.policy.due import shares_due
from actors.policy.pace import Pace
from actors.policy.rates import Rates
from actors.policy.rules import ConfiguredRules
from actors.policy.shares import BY_RANK
from actors.queues import Queues
from autoglm.degrade import QueueStatus
from autoglm.service import Hold, Service, TenantStatus
from model.hosted import HostedEngine
from runtime.clock import Clock
from runtime.config import Config
from runtime.store.protocol import Lane
from runtime.supervision import Supervised

Lanes = Mapping[Lane, int]
_NO_END = frozenset({"paused", "breaker", "loading"})
"""Who is held so goes on nobody knows when."""
_Summary = tuple[tuple[QueueStatus, ...], tuple[TenantStatus, ...]]
LANES_AT_ONCE = 500
KEPT_S_PER_LANE = 0.001
"""A summary of more lanes than `LANES_AT_ONCE` will do for so long for each of the others, so that
looking on costs the same however many there are.
"""
SUMMARY_TENANTS_MAX = 32
TENANTS_MAX = 1000
"""Tenants that are told of: those of which most waits or runs."""


class Sources(msgspec.Struct, frozen=True):
    """Where to look; filled in by the tree."""

    queues: Queues
    rates: Rates
    pace: Pace
    """Both are the scheduler's."""
    engines: Sequence[tuple[HostedEngine[Any], Supervised]]
    waiting: Callable[[], Lanes]
    """By the persister: what neither runs nor has ended."""
    running: Callable[[], Lanes]
    """By the scheduler."""


class Serving:
    def __init__(self, config: Config, sources: Sources, clock: Clock) -> None:
        self._rules = ConfiguredRules(config)
        self._shared = config.scheduler.policy not in BY_RANK
        self._sources = sources
        self._clock = clock
        self._kept: tuple[float, _Summary] | None = None
        """The last summary, and until when it will do."""

    def summary(self) -> _Summary:
        """Every queue, and the tenants with most work, for who asks again and again."""
        now = self._clock.monotonic()
        if self._kept is None or now >= self._kept[0]:
            view = self._look()
            until = now + KEPT_S_PER_LANE * max(0, len(view.lanes) - LANES_AT_ONCE)
            told = self._tell_queues(view), self._tell_tenants(view, SUMMARY_TENANTS_MAX)
            self._kept = (until, told)
        return self._kept[1]

    def queues(self) -> tuple[QueueStatus, ...]:
        """Every queue, with how it is served."""
        return self._tell_queues(self._look())

    def _tell_queues(self, view: _View) -> tuple[QueueStatus, ...]:
        return tuple(
            msgspec.structs.replace(queue, service=view.queue(queue))
            for queue in self._sources.queues.statuses()
        )

    def tenants(self) -> tuple[TenantStatus, ...]:
        """Every tenant of which something waits, runs or ran lately, by name; of a great many those
        with most work.
        """
        return self._tell_tenants(self._look(), TENANTS_MAX)

    def _tell_tenants(self, view: _View, tenants_max: int) -> tuple[TenantStatus, ...]:
        work = Counter(tenant for _, tenant in view.used)
        for lanes in (view.waiting, view.running):
            for (_, tenant), count in lanes.items():
                work[tenant] += count
        names = sorted(name for name, _ in work.most_common(tenants_max))
        queues = {each.name: each for each in self._sources.queues.statuses()}
        return tuple(TenantStatus(name, view.tenant(name, queues)) for name in names)

    def _look(self) -> _View:
        return _View(self._sources, self._rules, self._clock.monotonic(), shared=self._shared)


class _View:
    """All there is to know at one moment."""

    def __init__(
        self, sources: Sources, rules: ConfiguredRules, now: float, *, shared: bool
    ) -> None:
        self._sources = sources
        self._rules = rules
        self._now = now
        self._shared = shared
        self.waiting, self.running = sources.waiting(), sources.running()
        self.used = sources.pace.spent.shares(now)
        self._due = shares_due({**self.waiting, **self.running}, rules) if shared else {}
        self._no_engine = self._without_engine()
        self._tenants_held: dict[str, Hold | None] = {}
        self._in_queue: defaultdict[str, list[Lane]] = defaultdict(list)
        self._of_tenant: defaultdict[str, list[Lane]] = defaultdict(list)
        self.lanes = {**self.waiting, **self.running, **self.used}.keys()
        for lane in self.lanes:
            self._in_queue[lane[0]].append(lane)
            self._of_tenant[lane[1]].append(lane)

    def queue(self, queue: QueueStatus) -> Service:
        name = queue.name
        lanes = self._in_queue[name]
        held = self._held_in(queue)
        tenants = [lane[1] for lane in lanes if lane in self.waiting]
        if not held and tenants and all(map(self._tenant_held, tenants)):
            held = [Hold("tenants", f"all tenants that wait in it are held: {_some(tenants)}")]
        caps = (self._rules.queue_weight(name), self._rules.queue_cap(name))
        return self._service(lanes, *caps, held)

    def tenant(self, name: str, queues: Mapping[str, QueueStatus]) -> Service:
        lanes = self._of_tenant[name]
        own = self._tenant_held(name)
        held = [own] if own is not None else []
        waits_in = [lane[0] for lane in lanes if lane in self.waiting]
        in_queues = [self._held_in(queues[queue]) if queue in queues else [] for queue in waits_in]
        if waits_in and all(in_queues):
            # What holds every queue, such as an engine that loads, is said once.
            held += dict.fromkeys(hold for holds in in_queues for hold in holds)
        caps = (self._rules.tenant_weight(name), self._rules.tenant_cap(name))
        return self._service(lanes, *caps, held)

    def _service(
        self, lanes: Sequence[Lane], weight: float, cap: int | None, held: Iterable[Hold]
    ) -> Service:
        waiting = {lane: self.waiting[lane] for lane in lanes if lane in self.waiting}
        holds = tuple(held)
        stands = any(hold.why in _NO_END for hold in holds)
        return Service(
            weight=weight,
            due=round(sum(self._due.get(lane, 0.0) for lane in lanes), 4) if self._shared else None,
            used=round(sum(self.used.get(lane, 0.0) for lane in lanes), 4),
            running=self._runs(lanes),
            max_running=cap,
            waiting=sum(waiting.values()),
            finishes_in_s=None if stands else self._sources.pace.done_in_s(waiting),
            held=holds,
        )

    def _runs(self, lanes: Iterable[Lane]) -> int:
        return sum(self.running.get(lane, 0) for lane in lanes)

    def _waits(self, lanes: Iterable[Lane]) -> bool:
        return any(lane in self.waiting for lane in lanes)

    def _held_in(self, queue: QueueStatus) -> list[Hold]:
        """What holds everything in a queue."""
        name, held = queue.name, list[Hold]()
        if queue.paused:
            by = f" by {queue.paused_by}" if queue.paused_by else ""
            held.append(Hold("paused", f"queue {name} is paused{by}"))
        cap = self._rules.queue_cap(name)
        lanes = self._in_queue[name]
        waits = self._waits(lanes)
        if waits and cap is not None and self._runs(lanes) >= cap:
            held.append(Hold("cap", f"queues.{name}.max_running is {cap}"))
        if waits and self._no_engine is not None:
            held.append(self._no_engine)
        return held

    def _tenant_held(self, name: str) -> Hold | None:
        """What holds everything of a tenant."""
        if name not in self._tenants_held:
            self._tenants_held[name] = self._hold_of(name)
        return self._tenants_held[name]

    def _hold_of(self, name: str) -> Hold | None:
        lanes = self._of_tenant[name]
        if not self._waits(lanes):
            return None
        runs, cap = self._runs(lanes), self._rules.tenant_cap(name)
        if cap is not None and runs >= cap:
            return Hold("cap", f"tenants.{name}.max_running is {cap}")
        held = self._sources.rates.held(name, runs, self._now)
        if held is None:
            return None
        until_s = round(held.wait_s, 1) if held.wait_s else None
        return Hold("rate", f"tenants.{name}.{held.limit} is used up", until_s)

    def _without_engine(self) -> Hold | None:
        """What holds everything while no engine is ready."""
        engines = self._sources.engines
        if any(engine.info is not None for engine, _ in engines):
            return None
        out = outage([child.breaker for _, child in engines], self._now)
        if out is None:
            return Hold("loading", "no engine is ready yet")
        return Hold("breaker", "the breakers of all engines are open", out.retry_after)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
