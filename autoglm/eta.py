"""When a task is likely to start and to finish."""

from __future__ import annotations

import msgspec


class Eta(msgspec.Struct, frozen=True):
    """An estimate from rates that were measured a moment ago, in seconds from now; None: nothing
    is known yet. It holds as long as what comes meanwhile is no more urgent, and the rates stay.
    """

    starts_in_s: float | None = None
    """0 for what runs."""
    finishes_in_s: float | None = None
    ahead: int = 0
    """Tasks of the same queue and tenant that are to run before it."""
    at_least: bool = False
    """More are ahead than are counted: it takes longer."""
