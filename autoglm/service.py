"""How queues and tenants are served at the moment: what they get, what is due, what holds them."""

from __future__ import annotations

from typing import Literal

import msgspec


class Hold(msgspec.Struct, frozen=True):
    """Why something that waits is not begun."""

    why: Literal["paused", "breaker", "loading", "cap", "rate", "tenants"]
    """Somebody paused it; the breakers of all engines are open; no engine is ready yet; as many run
    as may; a rate is used up; every tenant that waits in the queue is held.
    """
    text: str
    until_s: float | None = None
    """Seconds until it is over or looked at again, where that is known."""


class Service(msgspec.Struct, frozen=True):
    """Of one queue or one tenant. Shares are of all tokens, 0 to 1."""

    weight: float
    due: float | None
    """Its share among those with work now; None where `scheduler.policy` knows no shares."""
    used: float
    """Its share of what the engines did in about the last minute."""
    running: int
    max_running: int | None
    waiting: int
    """Tasks that neither run nor have ended, paused and blocked ones among them."""
    finishes_in_s: float | None
    """About when what waits is done, from the pace of the last minute of work; None: not known."""
    held: tuple[Hold, ...] = ()


class TenantStatus(msgspec.Struct, frozen=True):
    """One tenant with work, or that had some in the last minutes."""

    name: str
    service: Service
