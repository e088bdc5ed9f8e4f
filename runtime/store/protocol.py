"""What the store promises, and everything that can be asked of it.

`commit` takes any number of writes and makes one transaction of them: durable when it returns,
all of it or none, except that a write which fails takes back only itself and its result is the
error. `query` reads what is committed. There is no SQL outside this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from autoglm.types import Answer, ErrorInfo, Message, Output, Sampling, TaskSpec, TaskState, Usage
from autoglm.wire import GetEvents, ListTasks
from runtime.partial import Partial
from runtime.store.limits import NO_LIMITS, Limits
from runtime.store.standin import KeptQueue, PausedQueue, StandIns

Lane = tuple[str, str]
"""`(queue, tenant)`: tasks that only their ranks tell apart."""
Key = tuple[int, int]
"""A pending task's place in its lane: `(rank, seq)`, smaller first."""
URGENT_PRIORITY = 1
"""This priority and those above it wait for nothing that can be avoided."""


class Write(msgspec.Struct, frozen=True):
    """Base of the writes."""


class InsertTasks(Write, frozen=True):
    """Result: `tuple[Accepted, ...]`, one a task; ServerBusy, and nothing is stored, where they
    don't fit into the limits.
    """

    tasks: tuple[TaskSpec, ...]
    standins: StandIns = {}
    limits: Limits = NO_LIMITS


class ClaimTasks(Write, frozen=True):
    """Pending -> running for `owner`, attempt + 1. Result: `tuple[ClaimedTask, ...]`.

    Tasks that are no longer pending are left out, and those of queues that are paused.
    """

    owner: str
    seqs: tuple[int, ...]


class Outcome(msgspec.Struct, frozen=True):
    """How an attempt ended: what becomes of a running task, if `attempt` is still the current."""

    seq: int
    attempt: int
    state: TaskState
    """succeeded, retrying, dead, or pending: put back, uncharged."""
    output: Output | None = None
    error: ErrorInfo | None = None
    charged: bool = False
    """Whether the failure counts towards the task's limit."""
    died: bool = False
    """Whether the engine died while it ran."""
    retry_in_ms: int = 0
    usage: Usage = Usage()
    """What the attempt took, answered or not."""
    prompt_chars: int = 0
    partial: Partial | None = None
    """Of what is put back: its answer so far, to go on from; None: what was kept before stays."""


class RecordOutcomes(Write, frozen=True):
    """Result: `int`, how many were recorded; late writers are passed over."""

    outcomes: tuple[Outcome, ...]


class PutBack(Write, frozen=True):
    """What runs under `owner` (None: anybody) goes back to pending, uncharged, except `keep`.

    With None, a pause before a retry lasts `pause_max_ms` longer at the most, whatever the clock
    did meanwhile. Result: the `(seq, attempt)` pairs put back. For when an owner is gone.
    """

    owner: str | None
    keep: frozenset[tuple[int, int]] = frozenset()
    """`(seq, attempt)` of what the owner still has."""
    pause_max_ms: int = 0


class CancelTasks(Write, frozen=True):
    """Result: `Settled`. `tenant` None: the operator's reach.

    Of a job, a slice: go on with `after` until the result's `next` is None.
    """

    tenant: str | None
    ids: tuple[str, ...] = ()
    job: str | None = None
    after: int = 0
    by: str | None = None
    """Who asked for it."""


class ReleaseDue(Write, frozen=True):
    """Retries whose pause is over become pending, what is past `expires` ends. Result: None.

    A slice of them: `Effects.next_due_ms` is in the past when there are more.
    """


class ClaimedTask(msgspec.Struct, frozen=True):
    """A task as a batcher needs it."""

    seq: int
    id: str
    attempt: int
    failures: int
    deaths: int
    """Engine deaths it was present at."""
    priority: int
    """Its own, or that of a more urgent one that waits for it."""
    rank: int
    stream: bool
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    max_attempts: int | None = None
    attempt_timeout_s: float | None = None
    lane: Lane = ("normal", "default")
    continued: Partial | None = None
    """Its answer as far as an earlier attempt came."""


class Settled(msgspec.Struct, frozen=True):
    """What became of the tasks that were named: the ids that exist within the tenant's reach, those
    that don't, and how many tasks were changed. `next`: go on behind it; None: these were all.
    """

    known: tuple[str, ...]
    unknown: tuple[str, ...]
    count: int
    next: int | None = None


class Ending(msgspec.Struct, frozen=True):
    """A task that ended, with the jobs whose lines wait for it."""

    id: str
    jobs: tuple[str, ...]
    answer: Answer | None = None
    """What a query finds now; None: it takes a query."""


class StoppedTask(msgspec.Struct, frozen=True):
    """A task that was running and must be stopped in the engine of its owner."""

    seq: int
    owner: str


class Answered(NamedTuple):
    """What there is to learn from a task that was answered."""

    tenant: str
    kind: str | None
    prompt_chars: int
    tokens: int
    """Of the answer."""
    age_ms: int
    """Since it was handed in."""


class Left(NamedTuple):
    """A task that is no longer running, and what its attempt took."""

    seq: int
    usage: Usage


class Effects(msgspec.Struct):
    """What a commit changed, for those who must hear of it. Read only after the commit."""

    ready: dict[Lane, list[Key]] = {}
    """What became pending, and what is pending still though it was to be claimed."""
    gone: dict[Lane, list[Key]] = {}
    """Keys under which a pending task was and is no longer; it may be under another of `ready`."""
    urgent: list[int] = []
    """Of that, what is urgent and was not waiting before, or not as urgent; task numbers."""
    begins: dict[int, int] = {}
    """What those begin with that were handed in just now, where others may begin alike."""
    left: list[Left] = []
    endings: list[Ending] = []
    stopped: list[StoppedTask] = []
    jobs: set[str] = set()
    """Jobs of which something may be told now."""
    waiting: dict[Lane, int] = {}
    """Change of the number of tasks that wait."""
    overflowed: dict[str, int] = {}
    """Queues in which tasks wait too long, and would rather have others refused; until when that
    holds (Unix ms), if nothing more is heard.
    """
    taken_in: dict[str, int] = {}
    """New tasks that were counted against limits, by tenant."""
    counts: dict[TaskState, int] = {}
    """Change of the number of tasks in each state."""
    chores: bool = False
    """Whether a `DoChore` has something to do now."""
    queues: dict[str, KeptQueue | None] = {}
    """What is set of queues now; None: nothing."""
    paused: dict[str, PausedQueue | None] = {}
    """Queues that were paused or are to be drained, and those that were resumed."""
    next_due_ms: int | None = None
    """The earliest point in time that this commit made something due."""


class Committed(msgspec.Struct, frozen=True):
    """One result a write, in order: its value, or the error that took it back."""

    results: tuple[Any, ...]
    effects: Effects


class Query(msgspec.Struct, frozen=True):
    """Base of the queries."""


class FetchAnswers(Query, frozen=True):
    """Result: `dict[id, Answer]`; missing ids, and other tenants' ones, are left out."""

    tenant: str | None
    ids: tuple[str, ...]


class FetchTasks(Query, frozen=True):
    """Result: `tuple[tuple[Task, ...], int | None]`, a page and the cursor of the next."""

    tenant: str | None
    filter: ListTasks


class FetchEvents(Query, frozen=True):
    """Result: `tuple[tuple[Event, ...], int, bool]`: events, cursor, whether there are more.

    Raises NotFound for an unknown task.
    """

    tenant: str | None
    filter: GetEvents


class FetchSummary(Query, frozen=True):
    """Result: `Summary`."""


class Summary(msgspec.Struct, frozen=True):
    counts: dict[TaskState, int]
    next_due_ms: int | None
    queues: tuple[KeptQueue, ...] = ()
    paused: tuple[PausedQueue, ...] = ()
    waiting: dict[Lane, int] = {}
    """How many tasks neither run nor have ended; lanes without any are left out."""


class Store(Protocol):
    async def open(self) -> None:
        """Raises StoreError when the file can't be used; nothing is written then."""
        ...

    async def close(self) -> None: ...

    async def commit(self, writes: Sequence[Write], now_ms: int) -> Committed: ...

    async def query(self, query: Query) -> Any: ...

    async def impair(self, fault: Fault | None) -> None:
        """Have the disk be at fault, for a drill; None: lift it. Raises StoreError."""
        ...


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with the disk until `until_ms`, in the time that commits are given."""

    until_ms: int
    slow_ms: int = 0
    full: bool = False


class StoreError(Exception):
    """The store can't be used or could not commit; says which file and what to do."""


class StoreBlocked(StoreError):
    """The world is in the way (a full disk, a lock, a mode): the same call may work later."""


class StoreDamaged(StoreError):
    """The file is not what it was: nothing more must be written to it."""
