"""The messages between actors. Commands are imperative, events past tense.

They are passed by reference inside this process and never encoded. A message with a `reply` is a
question: its answer comes to the asker's mailbox as `Answered`.

    frontdoor ── Commit(InsertTasks, …) ──▶ persister (intake)
    scheduler, batcher ── Commit(ClaimTasks, RecordOutcomes, …) ──▶ persister (engine's lane)
    frontdoor, scheduler ── Ask(Fetch…) ──▶ reader
    persister ── TasksMoved ──▶ scheduler ── TasksAssigned ──▶ batcher ── WantTasks ──▶ scheduler
    persister ── TasksEnded ──▶ frontdoor       persister ── TasksStopped ──▶ batcher
    engine ── TextsArrived ──▶ frontdoor        frontdoor ── GetStatus, … ──▶ monitor
    retention ── Commit(DoChore, PruneTasks, …) ──▶ persister (intake)
    frontdoor ── Begin, Look, ConnectionGone (actors.drills) ──▶ drills
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from autoglm.errors import AutoGLMError
from model.engine import Progress
from runtime.mailbox import Answered, Reply
from runtime.store.protocol import ClaimedTask, Ending, Key, Lane, Left, Query, StoreError, Write


class Commit(msgspec.Struct, frozen=True):
    """To the persister: make this write durable. Answered by its result, or a `Refused`."""

    write: Write
    reply: Reply | None = None


class Ask(msgspec.Struct, frozen=True):
    """To the reader: answered by the query's result, or a `Refused`."""

    query: Query
    reply: Reply


class Refused(msgspec.Struct, frozen=True):
    """The answer when a write or a query could not be carried out; nothing was changed."""

    error: AutoGLMError | StoreError


class TasksMoved(msgspec.Struct, frozen=True):
    """These became pending, those run no more, and the commit is done."""

    ready: Mapping[Lane, Sequence[Key]]
    left: Sequence[Left] = ()
    gone: Mapping[Lane, Sequence[Key]] = {}
    """Keys that are void, as of before `ready`."""
    urgent: Sequence[int] = ()
    """Of what became pending, what is urgent and was not waiting before, or not as urgent."""
    begins: Mapping[int, int] = {}
    """What new ones begin with, by number, where others may begin alike."""


class DemandWithdrawn(msgspec.Struct, frozen=True):
    """A batcher's engine is down: whatever it had asked for is void."""

    batcher: str


class WantTasks(msgspec.Struct, frozen=True):
    """A batcher has room for so many more. What it wanted in an earlier term is void."""

    batcher: str
    term: int
    """Tells the instances of a batcher apart."""
    count: int
    urgent: int = 0
    """So many more if they are urgent, for others can be stopped for them."""


class TasksAssigned(msgspec.Struct, frozen=True):
    """Claimed for this batcher, after the commit. Fewer than `wanted` when some were gone."""

    term: int
    tasks: tuple[ClaimedTask, ...]
    urgent: bool = False
    """Whether these are what was wanted beyond the count."""


class TasksStopped(msgspec.Struct, frozen=True):
    """These ended while they ran (cancelled, expired): stop them in the engine."""

    seqs: tuple[int, ...]


class TasksEnded(msgspec.Struct, frozen=True):
    """These have ended, and the commit is done; something may be told of these jobs."""

    endings: tuple[Ending, ...]
    jobs: frozenset[str]


class TextsArrived(msgspec.Struct, frozen=True):
    """Provisional pieces of running answers."""

    pieces: tuple[Progress, ...]


class Drain(msgspec.Struct, frozen=True):
    """The server is to end: begin nothing more. Batchers hand back what they have not begun."""

    running_too: bool = False
    """And what they have, with the answers so far."""


class GetStatus(msgspec.Struct, frozen=True):
    """To the monitor. Answered by `autoglm.types.Status`."""

    reply: Reply


class GetTenants(msgspec.Struct, frozen=True):
    """To the monitor. Answered by `tuple[autoglm.service.TenantStatus, ...]`."""

    reply: Reply


PersisterMessage = Commit
ReaderMessage = Ask
SchedulerMessage = TasksMoved | DemandWithdrawn | WantTasks | Drain | Answered
BatcherMessage = TasksAssigned | TasksStopped | Drain | Answered
FrontdoorMessage = TasksEnded | TextsArrived | Answered
MonitorMessage = GetStatus | GetTenants
