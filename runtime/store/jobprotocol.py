"""What can be asked of the store about jobs. Part of `runtime.store.protocol`."""

from __future__ import annotations

import msgspec

from autoglm.wire import JobLine
from runtime.store.limits import NO_LIMITS, Limits
from runtime.store.protocol import Query, Write
from runtime.store.standin import StandIns


class OpenJob(Write, frozen=True):
    """Result: `JobOpening`. Raises Conflict when the output belongs to another job."""

    id: str
    tenant: str
    output: str
    input_hash: str
    options_hash: str
    fresh: bool


class InsertLines(Write, frozen=True):
    """Result: int, the last line that is in. Raises NotFound for an unknown job, and for one out
    of the tenant's reach (None: the operator's), EngineUnavailable where a stand-in refuses,
    ServerBusy where the lines don't fit into the limits.
    """

    tenant: str | None
    job: str
    lines: tuple[JobLine, ...]
    last: bool
    standins: StandIns = {}
    limits: Limits = NO_LIMITS


class JobOpening(msgspec.Struct, frozen=True):
    id: str
    submitted: int
    sealed: bool
    resumed: bool


class FetchJobLines(Query, frozen=True):
    """Result: `JobPage`. Raises NotFound for an unknown job."""

    tenant: str | None
    job: str
    after: int
    ordered: bool
    limit: int
