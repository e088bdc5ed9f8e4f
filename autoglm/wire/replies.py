"""What a server answers."""

from __future__ import annotations

import msgspec

from autoglm.deadletter import DeadLetter, DeadLetterInFull
from autoglm.degrade import QueueStatus
from autoglm.errors import AutoGLMError
from autoglm.eta import Eta
from autoglm.service import TenantStatus
from autoglm.status import Status
from autoglm.types import Answer, ErrorInfo, Event, Task
from autoglm.wire.base import PROTOCOL_VERSION, Message
from autoglm.wire.drills import CensusReply, DrillReply
from autoglm.wire.looking import ExportPage, IdsReply


class Welcome(Message, frozen=True, tag="welcome"):
    """Who the server is; the answer to `hello`."""

    version: str = ""
    protocol: int = PROTOCOL_VERSION
    engine: str = ""
    model: str = ""
    private: bool = False
    """It was started by a process for itself, and ends with it."""
    max_model_len: int | None = None
    """As configured; None: what the model was made for."""


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one submitted task: a durable `task`, or an `error` and nothing stored.

    `duplicate`: the id or key was known with the same content; `task` is the one that stood.
    """

    task: Task | None = None
    duplicate: bool = False
    error: ErrorInfo | None = None
    retry_after: float | None = None
    """Seconds after which handing it in again is worth it, where `error` is of the moment."""


class Submitted(Message, frozen=True, tag="submitted"):
    """One entry a task, in the order they were sent."""

    tasks: tuple[Accepted, ...] = ()


class AnswerReply(Message, frozen=True, tag="answer"):
    """A task as it stands, with its result if it has one. `eta`: where it was asked without
    waiting, of a task that is pending or runs.
    """

    answer: Answer | None = None
    eta: Eta | None = None


class Chunk(Message, frozen=True, tag="chunk"):
    """Provisional text of attempt `attempt` of task `id`, at `offset`, counted in Unicode code
    points from the beginning of its answer; a higher attempt starts over.
    """

    id: str = ""
    attempt: int = 0
    offset: int = 0
    text: str = ""


class TaskPage(Message, frozen=True, tag="tasks"):
    """A page of tasks. `next` is the cursor of the following page; None: this was the last."""

    tasks: tuple[Task, ...] = ()
    next: int | None = None


class Cancelled(Message, frozen=True, tag="cancelled"):
    """The tasks named, as they stand now; `count` of all that were changed; `next`: where to go on
    with those that were not named one by one, if any are left.
    """

    tasks: tuple[Task, ...] = ()
    unknown: tuple[str, ...] = ()
    count: int = 0
    next: int | None = None


class DeadPage(Message, frozen=True, tag="dead_letters"):
    """A page of dead letters. `next` is the cursor of the following page; None: this was the
    last.
    """

    letters: tuple[DeadLetter, ...] = ()
    next: int | None = None


class DeadReply(Message, frozen=True, tag="dead_letter"):
    """One dead letter in full."""

    letter: DeadLetterInFull | None = None


class QueuesReply(Message, frozen=True, tag="queues_are"):
    """Queues, as they stand."""

    queues: tuple[QueueStatus, ...] = ()


class TenantsReply(Message, frozen=True, tag="tenants_are"):
    tenants: tuple[TenantStatus, ...] = ()


class StatusReply(Message, frozen=True, tag="status_is"):
    """What `autoglm status --json` shows."""

    status: Status | None = None


class EventPage(Message, frozen=True, tag="events_are"):
    """A page of the event log. `next` is the cursor for the following call; `more`: the page was
    cut at its limit.
    """

    events: tuple[Event, ...] = ()
    next: int = 0
    more: bool = False


class Pruned(Message, frozen=True, tag="pruned"):
    """How many of each this slice removed; `next` None: nothing is left to remove."""

    tasks: int = 0
    results: int = 0
    events: int = 0
    jobs: int = 0
    next: tuple[int, int] | None = None


class JobOpened(Message, frozen=True, tag="job_opened"):
    """A job, open. `submitted`: lines 1 to this one are in the store already; `sealed`: all of
    them are.
    """

    job: str = ""
    submitted: int = 0
    sealed: bool = False
    resumed: bool = False


class LinesSubmitted(Message, frozen=True, tag="lines_submitted"):
    """Lines 1 to `submitted` are in the store."""

    submitted: int = 0


class JobLineEnded(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ended line: `answer`, or `error` for a line that never became a task."""

    line: int
    cursor: int
    custom_id: str | None = None
    url: str = "/v1/chat/completions"
    answer: Answer | None = None
    error: ErrorInfo | None = None


class JobLines(Message, frozen=True, tag="job_lines"):
    """Lines of a job that have ended. `done`: the job is sealed and no line after these remains."""

    lines: tuple[JobLineEnded, ...] = ()
    done: bool = False


class Error(Message, frozen=True, tag="error"):
    """The request was refused and changed nothing. `rid` 0: it could not be read at all, and the
    connection ends.
    """

    code: str = "internal"
    message: str = ""
    retry_after: float | None = None
    """Seconds after which sending the same request again is worth it; None: it is not."""


Reply = (
    Welcome
    | Submitted
    | AnswerReply
    | Chunk
    | TaskPage
    | Cancelled
    | DeadPage
    | DeadReply
    | QueuesReply
    | TenantsReply
    | StatusReply
    | EventPage
    | Pruned
    | JobOpened
    | LinesSubmitted
    | JobLines
    | DrillReply
    | CensusReply
    | ExportPage
    | IdsReply
    | Error
)


def refusal(rid: int, error: AutoGLMError) -> Error:
    """The frame that tells a client of `error`."""
    return Error(rid, error.code, str(error), error.retry_after)
