"""How much may be handed in: what the configuration allows, and how fast work goes out.

Used by the persister, which equips what it is about to commit with the limits of that moment and
tells of every commit. What waits is counted in the store; here is only what a restart may forget.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.policy.pace import Pace
from runtime.clock import Clock
from runtime.config import Config
from runtime.store.jobprotocol import InsertLines
from runtime.store.limits import Limits, TenantLimits
from runtime.store.protocol import Effects, InsertTasks, Write


class Quotas:
    def __init__(self, config: Config, clock: Clock) -> None:
        self._clock = clock
        self._pace = Pace(clock.monotonic())
        self._limits = Limits(
            config.scheduler.max_pending,
            config.scheduler.max_pending_bytes,
            {
                name: TenantLimits(tenant.max_pending)
                for name, tenant in config.tenants.items()
                if tenant.max_pending is not None
            },
        )

    def equip(self, writes: Sequence[Write]) -> list[Write]:
        """The writes, with what may be taken in at this moment."""
        if not self._limits.any:
            return list(writes)
        limits = msgspec.structs.replace(
            self._limits, endings_per_s=self._pace.per_s(self._clock.monotonic())
        )
        return [
            msgspec.structs.replace(write, limits=limits)
            if isinstance(write, InsertTasks | InsertLines)
            else write
            for write in writes
        ]

    def committed(self, effects: Effects) -> None:
        if effects.endings:
            self._pace.ended(len(effects.endings), self._clock.monotonic())

    def __repr__(self) -> str:
        return f"<Quotas: {self._limits}>"
