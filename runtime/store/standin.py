"""What stands in for the engines while none can serve, and what is kept of a queue's settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from autoglm.degrade import Degrade


class StandIn(msgspec.Struct, frozen=True):
    """What becomes of a new task of one queue now."""

    mode: Literal["fail_fast", "cached", "default"]
    text: str = ""
    """The answer of `default`; what `fail_fast` says."""
    retry_after: float | None = None
    """Seconds until an engine may be started, where that is known."""


StandIns = Mapping[str, StandIn]
"""By queue. Tasks of the others wait; so does everything while an engine may serve: it is empty."""


class KeptQueue(msgspec.Struct, frozen=True):
    """What somebody set of a queue while the server ran."""

    queue: str
    degrade: Degrade
    default_text: str | None = None
    """None: the configuration's."""


class PausedQueue(msgspec.Struct, frozen=True):
    """A queue of which nothing is begun, or, `draining`, into which nothing new is taken."""

    queue: str
    by: str | None
    draining: bool = False
