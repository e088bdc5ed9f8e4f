"""What `autoglm status --json` prints, and `Client.status` gives."""

from __future__ import annotations

import msgspec

from autoglm.degrade import QueueStatus
from autoglm.service import TenantStatus


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
    kv_usage: float = 0.0
    """Share of the KV cache in use, 0 to 1."""
    prompt_tokens: int = 0
    """Of requests that ended since this process of the engine was started."""
    cached_tokens: int = 0
    """Those of them that were found in the cache, thanks to a shared prefix."""
    restarts: int = 0


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
    error: str | None = None
    """Why its last instance ended, if one has."""


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


class RunningTask(msgspec.Struct, frozen=True):
    """A task in an engine, and for how long."""

    id: str
    tenant: str
    queue: str
    priority: int
    attempt: int
    engine: str
    ran_s: float
    text: str
    """How its last message, or its prompt, begins."""


class RecentFailure(msgspec.Struct, frozen=True):
    """An attempt that failed, and what became of its task."""

    id: str
    tenant: str
    queue: str
    attempt: int
    at: int
    code: str
    """Stable, for programs."""
    message: str
    state: str
    """`retrying`, `dead`, or `pending`: put back, as it was not its fault."""
    engine: str


class Status(msgspec.Struct, frozen=True):
    """What `autoglm status --json` prints."""

    server: ServerStatus
    tasks: dict[str, int]
    engines: tuple[EngineStatus, ...]
    actors: tuple[ActorStatus, ...]
    batches: BatchStatus
    queues: tuple[QueueStatus, ...] = ()
    tenants: tuple[TenantStatus, ...] = ()
    """Those with most work, up to 32. A client that speaks for a tenant is told of its own alone,
    here, in `slowest` and in `failures`.
    """
    slowest: tuple[RunningTask, ...] = ()
    """Tasks that have run longest, longest first, up to ten."""
    failures: tuple[RecentFailure, ...] = ()
    """Since the server started, newest first, up to ten."""
