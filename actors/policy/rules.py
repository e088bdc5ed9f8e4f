"""Weights and caps of queues and tenants, as configured. Pure."""

from __future__ import annotations

from collections.abc import Callable

from runtime.config import Config
from runtime.queueconfig import QueueConfig, TenantConfig

_PLAIN_QUEUE = QueueConfig()
_PLAIN_TENANT = TenantConfig()


class ConfiguredRules:
    """See actors.policy.shares.Rules. Who is not configured weighs 1 and has no cap; of a queue
    that is paused nothing may run.
    """

    def __init__(self, config: Config, paused: Callable[[str], bool] = lambda _: False) -> None:
        self._paused = paused
        self._queues = config.queues
        self._tenants = config.tenants

    def queue_weight(self, queue: str) -> float:
        return self._queues.get(queue, _PLAIN_QUEUE).weight or 1.0

    def queue_cap(self, queue: str) -> int | None:
        return 0 if self._paused(queue) else self._queues.get(queue, _PLAIN_QUEUE).max_running

    def tenant_weight(self, tenant: str) -> float:
        return self._tenants.get(tenant, _PLAIN_TENANT).weight

    def tenant_cap(self, tenant: str) -> int | None:
        return self._tenants.get(tenant, _PLAIN_TENANT).max_running
