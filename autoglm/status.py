"""What `autoglm status --json` prints, and `Client.status` gives."""

from __future__ import annotations

import msgspec

from autoglm.degrade import QueueStatus


class EngineStatus(msgspec.Struct, frozen=True):
    """One engine host. `choices` says what autoglm picked for this machine, and why."""

    id: str
    state: str
    """`loading`, `ready` or `down`."""
    breaker: str
    """`closed`, `open` or `half_open`."""
    model: str
    running: int
    waiting: int
    slots: int
    tokens_per_s: float
    pid: int | None = None
    choices: tuple[EngineChoice, ...] = ()
    error: str | None = None


class EngineChoice(msgspec.Struct, frozen=True):
    """One setting of an engine: what it is, and the reason it was picked."""

    name: str
    value: str
    why: str


class ActorStatus(msgspec.Struct, frozen=True):
    """One supervised actor; `mailbox` is how many messages wait, `processed` since server start."""

    name: str
    state: str
    restarts: int
    breaker: str
    mailbox: int
    processed: int


class BatchStatus(msgspec.Struct, frozen=True):
    """What went to the engines: `triggers` counts batches by what sent them."""

    count: int = 0
    mean_size: float = 0.0
    triggers: dict[str, int] = {}


class ServerStatus(msgspec.Struct, frozen=True):
    version: str
    pid: int
    started_at: int
    state: str
    """`running` or `draining`."""
    engine: str
    model: str
    data_dir: str
    trouble: str | None = None
    """Why nothing is accepted at the moment: what is wrong with the store, and what to do."""


class Status(msgspec.Struct, frozen=True):
    """What `autoglm status --json` prints."""

    server: ServerStatus
    tasks: dict[str, int]
    engines: tuple[EngineStatus, ...]
    actors: tuple[ActorStatus, ...]
    batches: BatchStatus
    queues: tuple[QueueStatus, ...] = ()
