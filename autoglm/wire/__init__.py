"""The wire protocol: length-prefixed msgpack frames over a unix socket.

A frame is four bytes, big-endian, giving the length of the body, then the body: one msgpack map
whose `type` names the message. Each side may send many frames without waiting. A request has an
`rid` chosen by the client, unique on its connection; every reply carries it. The first request is
`hello`. All names here are stored or sent: they change only with `PROTOCOL_VERSION`.
"""

from __future__ import annotations

from autoglm.wire.base import LIST_MAX, PAGE_MAX, PROTOCOL_VERSION, TASKS_PER_SUBMIT_MAX, Message
from autoglm.wire.framing import (
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    FrameSplitter,
    decode_reply,
    decode_request,
    encode_frame,
)
from autoglm.wire.replies import (
    Accepted,
    AnswerReply,
    Cancelled,
    Chunk,
    Error,
    EventPage,
    JobLineEnded,
    JobLines,
    JobOpened,
    LinesSubmitted,
    Pruned,
    Reply,
    StatusReply,
    Submitted,
    TaskPage,
    Welcome,
    refusal,
)
from autoglm.wire.requests import (
    Cancel,
    Follow,
    Forget,
    Get,
    GetEvents,
    GetJobLines,
    GetStatus,
    Hello,
    JobLine,
    ListTasks,
    OpenJob,
    Prune,
    Request,
    Submit,
    SubmitLines,
)

__all__ = [
    "FRAME_BYTES_MAX",
    "HEADER_BYTES",
    "LIST_MAX",
    "PAGE_MAX",
    "PROTOCOL_VERSION",
    "TASKS_PER_SUBMIT_MAX",
    "Accepted",
    "AnswerReply",
    "Cancel",
    "Cancelled",
    "Chunk",
    "Error",
    "EventPage",
    "Follow",
    "Forget",
    "FrameSplitter",
    "Get",
    "GetEvents",
    "GetJobLines",
    "GetStatus",
    "Hello",
    "JobLine",
    "JobLineEnded",
    "JobLines",
    "JobOpened",
    "LinesSubmitted",
    "ListTasks",
    "Message",
    "OpenJob",
    "Prune",
    "Pruned",
    "Reply",
    "Request",
    "StatusReply",
    "Submit",
    "SubmitLines",
    "Submitted",
    "TaskPage",
    "Welcome",
    "decode_reply",
    "decode_request",
    "encode_frame",
    "refusal",
]
