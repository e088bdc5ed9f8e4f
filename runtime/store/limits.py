"""How much work may wait: what goes with a write that takes work in."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from autoglm.types import TaskState

WAITING = frozenset(
    {
        *(TaskState.PENDING, TaskState.BLOCKED, TaskState.RETRYING),
        *(TaskState.PAUSED, TaskState.SCHEDULED),
    }
)
"""What counts: it is to run one day, and does not yet."""


class TenantLimits(msgspec.Struct, frozen=True):
    """What one tenant may hand in now."""

    max_pending: int | None = None
    """Tasks of it that wait at most; None: any number."""
    new: int | None = None
    """How many may be handed in now; None: any number."""
    new_per_s: float = 1.0
    """How many more a second."""
    new_max: int = 1
    """How many at once at the most."""
    closed: str = ""
    """Why nothing at all may be handed in; empty: it may."""
    closed_s: float = 0.0


class Closed(msgspec.Struct, frozen=True):
    """A queue takes nothing in now."""

    why: str
    retry_after: float
    """Seconds until it is worth another try."""


class Limits(msgspec.Struct, frozen=True):
    """What may be taken in now. Nothing set: anything."""

    max_pending: int | None = None
    """Tasks that wait at most, of all tenants together."""
    max_pending_bytes: int | None = None
    """Of their payloads, as stored."""
    tenants: Mapping[str, TenantLimits] = {}
    queues: Mapping[str, Closed] = {}
    """Those that take nothing in."""
    endings_per_s: float = 0
    """How fast tasks end at the moment, for `retry_after`."""

    @property
    def any(self) -> bool:
        return bool(
            self.tenants
            or self.queues
            or self.max_pending is not None
            or self.max_pending_bytes is not None
        )


NO_LIMITS = Limits()
