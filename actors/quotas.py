"""How much may be handed in: what the configuration allows, and how fast work goes out.

Used by the persister, which equips what it is about to commit with the limits of that moment and
tells of every commit. What waits is counted in the store; here is only what a restart may forget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from actors.policy.rates import Rates
from actors.policy.tempo import Tempo
from runtime.clock import Clock
from runtime.config import Config
from runtime.store.jobprotocol import InsertLines
from runtime.store.limits import Closed, Limits, TenantLimits
from runtime.store.protocol import Effects, InsertTasks, Write


class Quotas:
    def __init__(self, config: Config, rates: Rates, clock: Clock) -> None:
        """`rates`: shared with the scheduler, which counts what tasks take."""
        self._rates = rates
        self._clock = clock
        self._tempo = Tempo(clock.monotonic())
        self._limits = Limits(
            config.scheduler.max_pending,
            config.scheduler.max_pending_bytes,
            {
                name: TenantLimits(tenant.max_pending)
                for name, tenant in config.tenants.items()
                if tenant.max_pending is not None or tenant.rejects
            },
        )

    def equip(self, writes: Sequence[Write], closed: Mapping[str, Closed]) -> list[Write]:
        """The writes, with what may be taken in at this moment; `closed`: queues that take nothing
        in.
        """
        if not (self._limits.any or closed):
            return list(writes)
        now = self._clock.monotonic()
        limits = msgspec.structs.replace(
            self._limits,
            queues=closed,
            endings_per_s=self._tempo.per_s(now),
            tenants={name: self._rated(name, now) for name in self._limits.tenants},
        )
        return [
            msgspec.structs.replace(write, limits=limits)
            if isinstance(write, InsertTasks | InsertLines)
            else write
            for write in writes
        ]

    def committed(self, effects: Effects) -> None:
        now = self._clock.monotonic()
        if effects.endings:
            self._tempo.ended(len(effects.endings), now)
        for tenant, count in effects.taken_in.items():
            self._rates.taken_in(tenant, count, now)

    def _rated(self, tenant: str, now: float) -> TenantLimits:
        """What the tenant may hand in now."""
        limits = self._limits.tenants[tenant]
        if (closed_s := self._rates.closed_s(tenant, now)) > 0:
            closed = "has used up its tokens of this minute"
            return msgspec.structs.replace(limits, closed=closed, closed_s=closed_s)
        room = self._rates.room(tenant, now)
        if room is None:
            return limits
        new, per_s, most = room
        return msgspec.structs.replace(limits, new=new, new_per_s=per_s, new_max=most)

    def __repr__(self) -> str:
        return f"<Quotas: {self._limits}>"
