"""What a client may ask."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from autoglm.deadletter import Content
from autoglm.degrade import Degrade
from autoglm.types import ErrorInfo, TaskSpec, TaskState
from autoglm.wire.base import LIST_MAX, PAGE_MAX, PROTOCOL_VERSION, Message
from autoglm.wire.drills import BeginDrill, GetDrill, TakeCensus
from autoglm.wire.looking import ExportTasks, FindIds
from autoglm.wire.steering import Steer, SteerQueue


class Hello(Message, frozen=True, tag="hello"):
    """Must come first. With a `tenant`, the connection sees that tenant's tasks alone; without,
    it speaks for the operator and sees all.
    """

    protocol: int = PROTOCOL_VERSION
    """The version that the client speaks."""
    tenant: str | None = None


T = TypeVar("T")
_List = Annotated[tuple[T, ...], msgspec.Meta(max_length=LIST_MAX)]


class Submit(Message, frozen=True, tag="submit"):
    """Hand in tasks, all in one transaction. Answered by `submitted` after the commit.

    With `follow`, the `answer` of each task that was stored comes afterwards under the same
    `rid`, and before it the `chunk`s of those that stream.

    With `atomic` all of them are stored or none, and they may name each other in `after` in any
    order. Otherwise each is taken or refused by itself and may name those that stand before it.
    """

    tasks: _List[TaskSpec] = ()
    follow: bool = False
    atomic: bool = False


class Get(Message, frozen=True, tag="get"):
    """A task by id. With `wait`, answered when it has ended."""

    id: str = ""
    wait: bool = False


class Follow(Message, frozen=True, tag="follow"):
    """Chunks of a running task, then its `answer`."""

    id: str = ""


class Forget(Message, frozen=True, tag="forget"):
    """Stop waiting on request `target`: its replies are no longer wanted. Not answered, so its
    own `rid` means nothing.
    """

    target: int = 0


class ListTasks(Message, frozen=True, tag="list"):
    """Tasks, newest first, at most `limit`; `before` is the cursor of the last page."""

    states: _List[TaskState] = ()
    tenant: str | None = None
    job: str | None = None
    before: int | None = None
    limit: int = 100


class Cancel(Message, frozen=True, tag="cancel"):
    """End tasks that have not ended; a running one is stopped in the engine.

    Of a job, a slice: `after` is the `next` of the slice before.
    """

    ids: _List[str] = ()
    job: str | None = None
    after: int = 0


class Edit(Message, frozen=True, tag="edit"):
    """Give tasks that wait another priority or deadline, all of them or none. `version`: only if
    the one task is still at it. What runs or has ended is a conflict. Answered by `tasks`.
    """

    ids: _List[str] = ()
    priority: int | None = None
    deadline_at: int | None = None
    """None: as it is, or, with `no_deadline`, none."""
    no_deadline: bool = False
    version: int | None = None


class GetStatus(Message, frozen=True, tag="status"):
    """Everything the server says of itself."""


class ListQueues(Message, frozen=True, tag="queues"):
    """Every queue there is, and how it is served. Answered by `queues_are`."""


class ListTenants(Message, frozen=True, tag="tenants"):
    """The tenants with work, within reach. Answered by `tenants_are`."""


class SetQueue(Message, frozen=True, tag="set_queue"):
    """Change what queue `name` does while no engine can serve, or, with `reset`, go back to the
    configuration; it outlives the server. For the operator. Answered by `queues_are`, of this one.
    """

    name: str = ""
    degrade: Degrade | None = None
    default_text: str | None = None
    """None: the one there is."""
    reset: bool = False


class GetEvents(Message, frozen=True, tag="events"):
    """The event log after entry `after`, in order, of all tasks or of one; at most `limit`."""

    after: int = 0
    task: str | None = None
    limit: int = PAGE_MAX


class Prune(Message, frozen=True, tag="prune"):
    """Remove a slice of what ended before `before` (Unix ms): tasks with their answers and events,
    and whole jobs. For the operator. `after` is the `next` of the slice before.
    """

    before: int = 0
    after: tuple[int, int] = (0, 0)


class ListDead(Message, frozen=True, tag="list_dead"):
    """Dead letters, newest first, at most `limit`; `before` is the cursor of the last page."""

    tenant: str | None = None
    reason: str | None = None
    before: int | None = None
    limit: int = 100


class ShowDead(Message, frozen=True, tag="show_dead"):
    """One dead letter in full. Answered by `dead_letter`."""

    id: str = ""


class SettleDead(Message, frozen=True, tag="settle_dead"):
    """Retry dead letters (they run again, their failures counted anew) or, with `discard`, cancel
    them: those of `ids`, or, with `every`, a slice of all that `tenant` and `reason` fit; `after`
    is the `next` of the slice before. What is not dead stays as it is. Answered by `cancelled`.
    """

    discard: bool = False
    ids: _List[str] = ()
    every: bool = False
    tenant: str | None = None
    reason: str | None = None
    after: int = 0


class EditDead(Message, frozen=True, tag="edit_dead"):
    """Give a dead letter other content and retry it. `attempt` is that of the letter as it was
    read: one that was retried meanwhile is a conflict. Answered by `answer`.
    """

    id: str = ""
    attempt: int = 0
    content: Content = Content()


class OpenJob(Message, frozen=True, tag="open_job"):
    """Open the durable job that writes `output`, or take it up where it stood.

    The same output with another `input_hash` or `options_hash` is a conflict unless `fresh`,
    which begins a new one at once; what the old job has waiting is cancelled meanwhile.
    """

    output: str = ""
    input_hash: str = ""
    options_hash: str = ""
    fresh: bool = False


class JobLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a job's input: a task, or the reason why the line is none."""

    line: int
    custom_id: str | None = None
    url: str = "/v1/chat/completions"
    task: TaskSpec | None = None
    error: ErrorInfo | None = None


class SubmitLines(Message, frozen=True, tag="submit_lines"):
    """Lines of a job in their order, all in one transaction. A line handed in before is passed
    over; a line the server refuses is recorded as failed and stops nothing. `last` says that no
    more follow.
    """

    job: str = ""
    lines: _List[JobLine] = ()
    last: bool = False


class GetJobLines(Message, frozen=True, tag="get_job_lines"):
    """Ended lines of a job after the cursor `after`.

    `ordered`: in input order, up to the first line that has not ended (cursor: the line).
    Otherwise in the order they ended (cursor: the ending's number). When there is none yet the
    reply waits for one.
    """

    job: str = ""
    after: int = 0
    ordered: bool = True
    limit: int = 256


Request = (
    Hello
    | Submit
    | Get
    | Follow
    | Forget
    | ListTasks
    | Cancel
    | Edit
    | GetStatus
    | ListQueues
    | ListTenants
    | SetQueue
    | GetEvents
    | Prune
    | ListDead
    | ShowDead
    | SettleDead
    | EditDead
    | OpenJob
    | SubmitLines
    | GetJobLines
    | BeginDrill
    | GetDrill
    | TakeCensus
    | Steer
    | SteerQueue
    | ExportTasks
    | FindIds
)
