"""The wire protocol: length-prefixed msgpack frames over a unix socket.

A frame is four bytes, big-endian, giving the length of the body, then the body: one msgpack map
whose `type` names the message. Each side may send many frames without waiting. A request has an
`rid` chosen by the client, unique on its connection; every reply carries it. The first request is
`hello`. All names here are stored or sent: they change only with `PROTOCOL_VERSION`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, TypeVar

import msgspec

from autoglm.errors import AutoGLMError, ProtocolError
from autoglm.types import Answer, ErrorInfo, Event, Status, Task, TaskSpec, TaskState

PROTOCOL_VERSION = 1
FRAME_BYTES_MAX = 32 * 1024 * 1024
HEADER_BYTES = 4
TASKS_PER_SUBMIT_MAX = 4096
"""Tasks, lines or ids in one request: bounds the transaction that others wait for."""
PAGE_MAX = 1000
LIST_MAX = 65_536
"""Items in a list of a request: more are not even decoded. A frame full of the smallest tasks
would be a gigabyte of them.
"""


class _Message(msgspec.Struct, frozen=True, omit_defaults=True, tag_field="type"):
    rid: int


# ── requests ──────────────────────────────────────────────────────────────────────────────────


class Hello(_Message, frozen=True, tag="hello"):
    """Must come first. With a `tenant`, the connection sees that tenant's tasks alone; without,
    it speaks for the operator and sees all.
    """

    protocol: int = PROTOCOL_VERSION
    tenant: str | None = None


T = TypeVar("T")
_List = Annotated[tuple[T, ...], msgspec.Meta(max_length=LIST_MAX)]


class Submit(_Message, frozen=True, tag="submit"):
    """Hand in tasks, all in one transaction. Answered by `submitted` after the commit.

    With `follow`, the `answer` of each task that was stored comes afterwards under the same
    `rid`, and before it the `chunk`s of those that stream.
    """

    tasks: _List[TaskSpec] = ()
    follow: bool = False


class Get(_Message, frozen=True, tag="get"):
    """A task by id. With `wait`, answered when it has ended."""

    id: str = ""
    wait: bool = False


class Follow(_Message, frozen=True, tag="follow"):
    """Chunks of a running task, then its `answer`."""

    id: str = ""


class Forget(_Message, frozen=True, tag="forget"):
    """Stop waiting on request `target`: its replies are no longer wanted. Not answered, so its
    own `rid` means nothing.
    """

    target: int = 0


class ListTasks(_Message, frozen=True, tag="list"):
    """Tasks, newest first, at most `limit`; `before` is the cursor of the last page."""

    states: _List[TaskState] = ()
    tenant: str | None = None
    job: str | None = None
    before: int | None = None
    limit: int = 100


class Cancel(_Message, frozen=True, tag="cancel"):
    """End tasks that have not ended; a running one is stopped in the engine.

    Of a job, a slice: `after` is the `next` of the slice before.
    """

    ids: _List[str] = ()
    job: str | None = None
    after: int = 0


class GetStatus(_Message, frozen=True, tag="status"):
    pass


class GetEvents(_Message, frozen=True, tag="events"):
    """The event log after `after`, in order, of all tasks or of one."""

    after: int = 0
    task: str | None = None
    limit: int = PAGE_MAX


class Prune(_Message, frozen=True, tag="prune"):
    """Remove a slice of what ended before `before` (Unix ms): tasks with their answers and events,
    and whole jobs. For the operator. `after` is the `next` of the slice before.
    """

    before: int = 0
    after: tuple[int, int] = (0, 0)


class OpenJob(_Message, frozen=True, tag="open_job"):
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


class SubmitLines(_Message, frozen=True, tag="submit_lines"):
    """Lines of a job in their order, all in one transaction. A line handed in before is passed
    over; a line the server refuses is recorded as failed and stops nothing. `last` says that no
    more follow.
    """

    job: str = ""
    lines: _List[JobLine] = ()
    last: bool = False


class GetJobLines(_Message, frozen=True, tag="get_job_lines"):
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
    | GetStatus
    | GetEvents
    | Prune
    | OpenJob
    | SubmitLines
    | GetJobLines
)


# ── replies ───────────────────────────────────────────────────────────────────────────────────


class Welcome(_Message, frozen=True, tag="welcome"):
    version: str = ""
    protocol: int = PROTOCOL_VERSION
    engine: str = ""
    model: str = ""


class Accepted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one submitted task: a durable `task`, or an `error` and nothing stored.

    `duplicate`: the id or key was known with the same content; `task` is the one that stood.
    """

    task: Task | None = None
    duplicate: bool = False
    error: ErrorInfo | None = None


class Submitted(_Message, frozen=True, tag="submitted"):
    """One entry a task, in the order they were sent."""

    tasks: tuple[Accepted, ...] = ()


class AnswerReply(_Message, frozen=True, tag="answer"):
    answer: Answer | None = None


class Chunk(_Message, frozen=True, tag="chunk"):
    """Provisional text of attempt `attempt` at character `offset`; a higher attempt starts over."""

    id: str = ""
    attempt: int = 0
    offset: int = 0
    text: str = ""


class TaskPage(_Message, frozen=True, tag="tasks"):
    """`next` is the cursor of the following page; None: this was the last."""

    tasks: tuple[Task, ...] = ()
    next: int | None = None


class Cancelled(_Message, frozen=True, tag="cancelled"):
    """The tasks named, as they stand now; `count` of those it ended; `next`: of a job, if any."""

    tasks: tuple[Task, ...] = ()
    unknown: tuple[str, ...] = ()
    count: int = 0
    next: int | None = None


class StatusReply(_Message, frozen=True, tag="status_is"):
    status: Status | None = None


class EventPage(_Message, frozen=True, tag="events_are"):
    """`next` is the cursor for the following call; `more`: the page was cut at its limit."""

    events: tuple[Event, ...] = ()
    next: int = 0
    more: bool = False


class Pruned(_Message, frozen=True, tag="pruned"):
    """How many of each this slice removed; `next` None: nothing is left to remove."""

    tasks: int = 0
    results: int = 0
    events: int = 0
    jobs: int = 0
    next: tuple[int, int] | None = None


class JobOpened(_Message, frozen=True, tag="job_opened"):
    """`submitted`: lines 1 to this one are in the store already; `sealed`: all of them are."""

    job: str = ""
    submitted: int = 0
    sealed: bool = False
    resumed: bool = False


class LinesSubmitted(_Message, frozen=True, tag="lines_submitted"):
    submitted: int = 0


class JobLineEnded(msgspec.Struct, frozen=True, omit_defaults=True):
    """One ended line: `answer`, or `error` for a line that never became a task."""

    line: int
    cursor: int
    custom_id: str | None = None
    url: str = "/v1/chat/completions"
    answer: Answer | None = None
    error: ErrorInfo | None = None


class JobLines(_Message, frozen=True, tag="job_lines"):
    """`done`: the job is sealed and no line after these remains."""

    lines: tuple[JobLineEnded, ...] = ()
    done: bool = False


class Error(_Message, frozen=True, tag="error"):
    """The request was refused and changed nothing. `rid` 0: it could not be read at all."""

    code: str = "internal"
    message: str = ""
    retry_after: float | None = None


Reply = (
    Welcome
    | Submitted
    | AnswerReply
    | Chunk
    | TaskPage
    | Cancelled
    | StatusReply
    | EventPage
    | Pruned
    | JobOpened
    | LinesSubmitted
    | JobLines
    | Error
)

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Not msgpack, not one of ours, text that is not UTF-8, and nesting without end."""
_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def encode_frame(message: Request | Reply) -> bytes:
    """The message as one frame. Raises ProtocolError when it is larger than a frame may be."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ProtocolError(
            f"a message of {len(body)} bytes is over the limit of {FRAME_BYTES_MAX}"
        )
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def refusal(rid: int, error: AutoGLMError) -> Error:
    """The frame that tells a client of `error`."""
    return Error(rid, error.code, str(error), error.retry_after)


def decode_request(body: bytes) -> Request:
    """Raises ProtocolError naming what is wrong with the body."""
    try:
        return _request_decoder.decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"not a request: {error}") from None


def decode_reply(body: bytes) -> Reply:
    """Raises ProtocolError naming what is wrong with the body."""
    try:
        return _reply_decoder.decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"not a reply: {error}") from None


class FrameSplitter:
    """Cuts a byte stream into frame bodies; keeps the unfinished rest, bounded by one frame."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._max = frame_bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes. Raises ProtocolError at a frame that is too long, after
        those before it: what was whole is answered, however the bytes came.
        """
        rest = self._rest
        rest += data
        bodies: list[bytes] = []
        start, end, size = 0, len(rest), 0
        with memoryview(rest) as view:
            while end - start >= HEADER_BYTES:
                size = int.from_bytes(view[start : start + HEADER_BYTES], "big")
                stop = start + HEADER_BYTES + size
                if size > self._max or stop > end:
                    break
                bodies.append(bytes(view[start + HEADER_BYTES : stop]))
                start = stop
        del rest[:start]
        yield from bodies
        if size > self._max:
            raise ProtocolError(f"a frame of {size} bytes is over the limit of {self._max}")
