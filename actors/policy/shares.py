"""Which lane is served next: the order of precedence between queues and tenants. Pure.

`FairShares`: the queue that got least of its share, in it the tenant that got least of its own,
both in tokens over weight. `RoundRobin`: the same, every task counting as one. `ByRank`: whichever
lane has the smallest rank, as if there were neither queues nor tenants. In all of them a cap holds:
whose cap is reached is passed over until something of it ends.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from typing import Protocol

from actors.policy.backlog import Head, Order, Place
from actors.policy.rates import Rates
from actors.policy.running import Running
from actors.policy.turns import Turns
from runtime.store.protocol import Key, Lane


class Rules(Protocol):
    """The configured weights and caps; None: no cap."""

    def queue_weight(self, queue: str) -> float: ...
    def tenant_weight(self, tenant: str) -> float: ...
    def queue_cap(self, queue: str) -> int | None: ...
    def tenant_cap(self, tenant: str) -> int | None: ...


class Shares(Order, Protocol):
    def know(self, lane: Lane, head: Head | None) -> None:
        """Where the lane begins; None: nothing waits in it."""
        ...

    def next(self) -> Lane | None:
        """The lane whose head is to run now; None: nobody's can."""
        ...

    def alone(self, lane: Lane) -> bool:
        """Whether nothing but this lane waits, and no cap or rate holds it."""
        ...

    def charge(self, lane: Lane, tokens: float, /) -> None:
        """A task of the lane was chosen, and is expected to take so much."""
        ...

    def settle(self, lane: Lane, tokens: float, /) -> None:
        """It took so much more, or less, than it was charged."""
        ...

    def freed(self, lane: Lane) -> None:
        """Something of the lane has stopped running, or its tenant's hold is over: what held it
        may hold no more.
        """
        ...


class _Caps:
    """Lanes that are passed over because their tenant's cap is reached, or its rate."""

    def __init__(self, rules: Rules, running: Running, rates: Rates) -> None:
        self._rules = rules
        self._running = running
        self._rates = rates
        self._held: dict[str, dict[str, None]] = {}
        """Tenants at their caps, with the queues in which they wait."""

    def queue_full(self, queue: str) -> bool:
        cap = self._rules.queue_cap(queue)
        return cap is not None and self._running.in_queue[queue] >= cap

    def none(self, lane: Lane) -> bool:
        """Whether nothing can ever hold the lane."""
        queue, tenant = lane
        capped = self._rules.queue_cap(queue) is not None or (
            self._rules.tenant_cap(tenant) is not None
        )
        return not capped and not self._rates.limits(tenant)

    def full(self, lane: Lane) -> bool:
        """Whether nothing more of the lane may run."""
        return self.queue_full(lane[0]) or self._tenant_full(lane[1])

    def holds(self, lane: Lane) -> bool:
        """Whether the tenant's cap is reached; the lane comes back by `release` then."""
        queue, tenant = lane
        if not self._tenant_full(tenant):
            return False
        self._held.setdefault(tenant, {})[queue] = None
        return True

    def release(self, tenant: str) -> list[Lane]:
        """The lanes that were held because of this tenant."""
        return [(queue, tenant) for queue in self._held.pop(tenant, ())]

    def _tenant_full(self, tenant: str) -> bool:
        cap, running = self._rules.tenant_cap(tenant), self._running.of_tenant[tenant]
        return (cap is not None and running >= cap) or self._rates.holds(tenant, running)


class FairShares:
    def __init__(self, rules: Rules, running: Running, rates: Rates) -> None:
        self._rules = rules
        self._caps = _Caps(rules, running, rates)
        self._queues = Turns(rules.queue_weight)
        self._tenants: dict[str, Turns] = {}
        self._offered: dict[Lane, None] = {}
        """Lanes whose head is known."""

    def know(self, lane: Lane, head: Head | None) -> None:
        queue, tenant = lane
        tenants = self._tenants.get(queue)
        if tenants is None:
            tenants = self._tenants[queue] = Turns(self._rules.tenant_weight)
        if head is None:
            self._offered.pop(lane, None)
            tenants.leave(tenant)
            if not len(tenants):
                self._queues.leave(queue)
            return
        self._queues.enter(queue)
        tenants.enter(tenant)
        if head.held:
            self._offered[lane] = None
            tenants.offer(tenant)
        else:
            self._offered.pop(lane, None)
            tenants.withdraw(tenant)

    def next(self) -> Lane | None:
        for queue in self._queues.by_turn():
            tenants = self._tenants[queue]
            if self._caps.queue_full(queue):
                continue
            while (tenant := tenants.first()) is not None:
                if not self._caps.holds((queue, tenant)):
                    self._queues.took_turn(queue)
                    tenants.took_turn(tenant)
                    return queue, tenant
                tenants.withdraw(tenant)
        return None

    def alone(self, lane: Lane) -> bool:
        only = len(self._queues) == len(self._tenants[lane[0]]) == 1
        return only and self._caps.none(lane)

    def charge(self, lane: Lane, tokens: float, /) -> None:
        queue, tenant = lane
        self._queues.charge(queue, tokens)
        if queue in self._tenants:
            self._tenants[queue].charge(tenant, tokens)

    def settle(self, lane: Lane, tokens: float, /) -> None:
        FairShares.charge(self, lane, tokens)

    def freed(self, lane: Lane) -> None:
        for held in self._caps.release(lane[1]):
            if held in self._offered:
                self._tenants[held[0]].offer(held[1])

    def place(self, lane: Lane) -> Place:
        tenants = self._tenants.get(lane[0])
        return (0.0 if tenants is None else tenants.served(lane[1]),)

    def capped(self, lane: Lane) -> bool:
        return self._caps.full(lane)

    def overdue(self, lane: Lane) -> bool:
        tenants = self._tenants.get(lane[0])
        return tenants is None or tenants.first() is None or tenants.ahead(lane[1]) < 0


class RoundRobin(FairShares):
    """One task each, whatever it takes."""

    def charge(self, lane: Lane, _tokens: float, /) -> None:
        super().charge(lane, 1)

    def settle(self, lane: Lane, _tokens: float, /) -> None:
        pass


class ByRank:
    def __init__(self, rules: Rules, running: Running, rates: Rates) -> None:
        self._caps = _Caps(rules, running, rates)
        self._heads: dict[Lane, Head] = {}
        self._heap: list[tuple[Key, Lane]] = []
        """Holds entries that are out of date, until they come to its head."""

    def know(self, lane: Lane, head: Head | None) -> None:
        if head is None:
            self._heads.pop(lane, None)
        elif self._heads.get(lane) != head:
            self._heads[lane] = head
            self._enqueue(lane)

    def next(self) -> Lane | None:
        passed_over: list[tuple[Key, Lane]] = []
        found: Lane | None = None
        while self._heap and found is None:
            key, lane = self._heap[0]
            if self._heads.get(lane) == Head(key, held=True) and not self._caps.holds(lane):
                if not self._caps.queue_full(lane[0]):
                    found = lane
                    break
                passed_over.append((key, lane))
            heapq.heappop(self._heap)
        for entry in passed_over:
            heapq.heappush(self._heap, entry)
        return found

    def alone(self, lane: Lane) -> bool:
        return len(self._heads) == 1 and self._caps.none(lane)

    def charge(self, _lane: Lane, _tokens: float, /) -> None:
        pass

    settle = charge

    def freed(self, lane: Lane) -> None:
        for held in self._caps.release(lane[1]):
            if held in self._heads:
                self._enqueue(held)

    def place(self, lane: Lane) -> Place:
        head = self._heads.get(lane)
        return head.key if head is not None and head.key is not None else (-math.inf, 0)

    def capped(self, lane: Lane) -> bool:
        return self._caps.full(lane)

    def overdue(self, lane: Lane) -> bool:
        return not self._heap or self.place(lane) < self._heap[0][0]

    def _enqueue(self, lane: Lane) -> None:
        head = self._heads[lane]
        if head.held and head.key is not None:
            heapq.heappush(self._heap, (head.key, lane))


POLICIES: dict[str, Callable[[Rules, Running, Rates], Shares]] = {
    "mlfq": FairShares,
    "round_robin": RoundRobin,
    "priority": ByRank,
    "fifo": ByRank,
}
"""By `scheduler.policy`; `fifo` and `priority` differ in how they rank."""
BY_RANK = frozenset({"priority", "fifo"})
"""Those that know no lanes."""
