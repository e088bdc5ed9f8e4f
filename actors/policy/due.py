"""Whose turn ought to be worth how much: the shares that are due to lanes with work. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from actors.policy.shares import Rules
from runtime.store.protocol import Lane


def shares_due(lanes: Iterable[Lane], rules: Rules) -> dict[Lane, float]:
    """The share of each of `lanes`, which have work: its queue's among those queues, and in it the
    tenant's. They add up to 1.
    """
    tenants: defaultdict[str, list[str]] = defaultdict(list)
    for queue, tenant in lanes:
        tenants[queue].append(tenant)
    of_queues = sum(map(rules.queue_weight, tenants))
    due: dict[Lane, float] = {}
    for queue, names in tenants.items():
        share = rules.queue_weight(queue) / of_queues
        of_tenants = sum(map(rules.tenant_weight, names))
        for name in names:
            due[queue, name] = share * rules.tenant_weight(name) / of_tenants
    return due
