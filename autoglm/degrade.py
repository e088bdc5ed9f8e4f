"""What a queue does with a new task while no engine can serve, in the words that people use."""

from __future__ import annotations

from typing import Literal

import msgspec

from autoglm.service import Service

Degrade = Literal["queue", "fail_fast", "cached", "default"]
"""It waits, is refused, is answered with an earlier result of the same request, or with a
configured text.
"""
Degraded = Literal["cached", "default"]
"""How a task was answered without an engine."""
IN_WORDS = {
    "cached": "cached: an earlier answer to the same request, as no engine could serve",
    "default": "default: the queue's configured text, as no engine could serve",
}


class QueueStatus(msgspec.Struct, frozen=True):
    """One queue, and what it does while no engine can serve."""

    name: str
    degrade: Degrade
    source: Literal["config", "live"] = "config"
    """Where `degrade` comes from: the configuration, or somebody who set it since."""
    default_text: str | None = None
    """What is recorded where `degrade` is `default`."""
    paused: bool = False
    """Whether nothing of it is begun until somebody resumes it."""
    paused_by: str | None = None
    """Who paused or drains it."""
    draining: bool = False
    """Whether nothing new is taken into it until somebody resumes it."""
    service: Service | None = None
    """How it is served at the moment; None: it was not asked for."""
