"""What can be said of an engine host: its states, its deaths, its statistics."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from model.engine import EngineInfo, EngineLoad
from runtime.actor import Statistics
from runtime.supervision import Broken, Mishap


class HostState(StrEnum):
    DOWN = "down"
    LOADING = "loading"
    READY = "ready"


class HostDied(Mishap):
    """The host process ended, hung or gave up; the message says what is known."""


class HostHung(HostDied):
    """It made no token for too long."""


class ProbeFailed(HostDied, Broken):
    """It fails whatever it is asked: another one must not follow at once."""


class PromptTokens(msgspec.Struct, frozen=True):
    """Of requests that ended: all, and those found in the cache."""

    all: int = 0
    cached: int = 0


class HostStatistics(Statistics, frozen=True):
    state: HostState
    pid: int | None
    info: EngineInfo | None
    load: EngineLoad
    flying: int
    tokens_per_s: float
    taken: PromptTokens
    last_error: str | None
