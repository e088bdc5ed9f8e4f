"""Frames and messages: what is sent is what arrives, and nonsense is refused."""

from __future__ import annotations

import contextlib
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm import wire
from autoglm.deadletter import Content, DeadLetter, DeadLetterInFull, Failure
from autoglm.degrade import QueueStatus
from autoglm.drill import Census, Drill, DrillPlan
from autoglm.errors import AutoGLMError, ProtocolError, ServerBusy, from_code
from autoglm.service import Hold, Service, TenantStatus
from autoglm.status import (
    ActorStatus,
    BatchStatus,
    EngineChoice,
    EngineStatus,
    ServerStatus,
    Status,
)
from autoglm.types import (
    Answer,
    ErrorInfo,
    Event,
    Message,
    Output,
    Sampling,
    Task,
    TaskSpec,
    TaskState,
    Usage,
)
from autoglm.wire import FRAME_BYTES_MAX, FRAMES, HEADER_BYTES, LINES, FrameSplitter, LineSplitter

TASK = Task("id", TaskState.DEAD, error=ErrorInfo("poison", "it killed the engine"), key="k")
SPEC = TaskSpec(
    "id",
    (Message("user", "Hé\0\U0001f600"),),
    sampling=Sampling(seed=-1, stop=("a",)),
    after=("b",),
)
ANSWER = Answer(TASK, Output("text", "stop", Usage(1, 2, 3), "cached"))
STATUS = Status(
    ServerStatus("0", 1, 2, "running", "simulated", "tiny", "/data"),
    {"pending": 3},
    (EngineStatus("e", "ready", "closed", "m", 1, 2, 3, 4.5, 6, (EngineChoice("a", "b", "c"),)),),
    (ActorStatus("frontdoor", "running", 0, "closed", 1, 2),),
    BatchStatus(1, 2.0, {"size": 1}),
)
LETTER: dict[str, Any] = {
    **dict.fromkeys(("message_id", "reason", "error", "tenant", "queue", "key", "text"), "x"),
    **dict.fromkeys(("attempt", "failures", "created_at", "died_at"), 5),
    **dict.fromkeys(("kind", "job")),
}
LINE = wire.JobLine(3, "mine", task=SPEC)

SERVICE = Service(1, 0.5, 0.25, 3, None, 4, 5.0, (Hold("rate", "why", 6.0),))
REQUESTS: list[wire.Request] = [
    wire.Hello(1, tenant="ours"),
    wire.Submit(2, (SPEC, SPEC), follow=True),
    wire.Get(3, "id", wait=True),
    wire.Follow(4, "id"),
    wire.Forget(0, 4),
    wire.ListTasks(5, (TaskState.DEAD,), "t", "j", 7, 8),
    wire.Cancel(6, ("a", "b"), "job", 500),
    wire.Edit(6, ("a", "b"), 3, 5, no_deadline=True, version=7),
    wire.GetStatus(7),
    wire.ListQueues(7),
    wire.ListTenants(7),
    wire.Steer(7, "requeue", ("a",), "job", every=True, after=5),
    wire.SteerQueue(7, "core", "drain"),
    wire.SetQueue(8, "core", "default", "text", reset=True),
    wire.GetEvents(8, 9, "id", 10),
    wire.Prune(10, 1000, (7, 8)),
    wire.ListDead(11, "t", "poison", 7, 8),
    wire.ShowDead(12, "id"),
    wire.SettleDead(13, discard=True, ids=("a",), every=True, tenant="t", reason="r", after=5),
    wire.EditDead(14, "id", 3, Content((Message("user", "x"),), None, Sampling(seed=1))),
    wire.OpenJob(9, "/out", "in", "opts", fresh=True),
    wire.SubmitLines(10, "job", (LINE, wire.JobLine(4, error=ErrorInfo("a", "b"))), last=True),
    wire.GetJobLines(11, "job", 5, ordered=False, limit=6),
    wire.BeginDrill(15, "id", DrillPlan("slow-disk", "store", 200, 10_000)),
    wire.GetDrill(16, "id", end=True),
    wire.TakeCensus(17, 1, 2, 3, 4),
    wire.ExportTasks(18, (TaskState.DEAD,), "t", "core", "job", since=5, after=6, limit=7),
    wire.FindIds(19, "01jx"),
]
REPLIES: list[wire.Reply] = [
    wire.Welcome(1, "0.1", engine="vllm", model="m"),
    wire.Submitted(
        2, (wire.Accepted(TASK), wire.Accepted(error=ErrorInfo("a", "b"), retry_after=0.5))
    ),
    wire.AnswerReply(3, ANSWER),
    wire.Chunk(4, "id", 2, 3, "text"),
    wire.TaskPage(5, (TASK,), 6),
    wire.Cancelled(6, (TASK,), ("nowhere",), 1, 1000),
    wire.DeadPage(11, (DeadLetter(**LETTER),), 5),
    wire.DeadReply(
        12,
        DeadLetterInFull(
            **LETTER,
            content=Content(prompt="x"),
            errors=(Failure(1, 2, "a", "b"),),
            original=Content(prompt="y"),
        ),
    ),
    wire.StatusReply(7, STATUS),
    wire.QueuesReply(7, (QueueStatus("core", "default", "live", "text", service=SERVICE),)),
    wire.TenantsReply(7, (TenantStatus("a", SERVICE),)),
    wire.EventPage(8, (Event(1, "id", "t", None, TaskState.PENDING, 0, 5, 0),), 1, more=True),
    wire.Pruned(10, 3, 2, 9, 1, (8, 9)),
    wire.JobOpened(9, "job", 5, sealed=True, resumed=True),
    wire.LinesSubmitted(10, 5),
    wire.JobLines(11, (wire.JobLineEnded(1, 2, "mine", answer=ANSWER),), done=True),
    wire.DrillReply(15, Drill("id", "kill-engine", "engine-1", "me", 1, 2, 3, 4, 5, "why", 6)),
    wire.CensusReply(17, Census(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, None)),
    wire.ExportPage(18, (wire.Exported(TASK, Content(prompt="x"), ANSWER.result),), 7),
    wire.IdsReply(19, ("a", "b")),
    wire.Error(12, "busy", "full", 0.5),
]


def body_of(frame: bytes) -> bytes:
    [body] = FrameSplitter().feed(frame)
    return body


def test_every_message_is_in_this_test() -> None:
    assert {type(message) for message in REQUESTS} == set(get_args(wire.Request))
    assert {type(message) for message in REPLIES} == set(get_args(wire.Reply))


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_request_arrives_as_it_was_sent(message: wire.Request) -> None:
    assert wire.decode_request(body_of(wire.encode_frame(message))) == message


@pytest.mark.parametrize("message", REPLIES, ids=lambda message: type(message).__name__)
def test_a_reply_arrives_as_it_was_sent(message: wire.Reply) -> None:
    assert wire.decode_reply(body_of(wire.encode_frame(message))) == message


@given(st.lists(st.binary(max_size=50)), st.data())
def test_the_frames_do_not_depend_on_how_the_bytes_arrive(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(len(body).to_bytes(HEADER_BYTES, "big") + body for body in bodies)
    splitter, arrived, place = FrameSplitter(), list[bytes](), 0
    while place < len(stream):
        size = data.draw(st.integers(1, len(stream) - place))
        arrived.extend(splitter.feed(stream[place : place + size]))
        place += size
    assert arrived == bodies


def test_a_frame_of_the_largest_size_is_taken_and_a_larger_one_refused_at_its_header() -> None:
    assert list(FrameSplitter(4).feed(b"\0\0\0\4abcd")) == [b"abcd"]
    with pytest.raises(ProtocolError, match="5 bytes is over the limit of 4"):
        list(FrameSplitter(4).feed(b"\0\0\0\5"))


@pytest.mark.parametrize("message", REQUESTS, ids=lambda message: type(message).__name__)
def test_a_request_says_the_same_as_a_line_of_json(message: wire.Request) -> None:
    [line] = LineSplitter().feed(wire.encode_line(message))
    assert wire.decode_line(line) == message


@given(st.lists(st.binary(max_size=50).map(lambda body: body.replace(b"\n", b""))), st.data())
def test_the_lines_do_not_depend_on_how_the_bytes_arrive(
    bodies: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(body + b"\n" for body in bodies)
    splitter, arrived, place = LineSplitter(), list[bytes](), 0
    while place < len(stream):
        size = data.draw(st.integers(1, len(stream) - place))
        arrived.extend(splitter.feed(stream[place : place + size]))
        place += size
    assert arrived == bodies


@pytest.mark.parametrize("pieces", [[b"abcde\n"], [b"abc", b"de"], [b"ab", b"cd", b"e"]])
def test_a_line_that_is_too_long_is_refused_before_it_ends_and_after_those_before_it(
    pieces: list[bytes],
) -> None:
    splitter, arrived = LineSplitter(4), list[bytes]()

    def feed() -> None:
        for piece in [b"abcd\n", *pieces]:
            arrived.extend(splitter.feed(piece))

    with pytest.raises(ProtocolError, match="over 4 bytes"):
        feed()
    assert arrived == [b"abcd"]


def test_no_text_breaks_a_line_and_the_longest_answer_fits_one() -> None:
    text = "\n\r\u2028\x85" + "\x01" * (16 * 1024 * 1024)
    line = wire.encode_line(wire.Chunk(1, "id", text=text))
    assert line.index(b"\n") == len(line) - 1


@pytest.mark.parametrize("first", range(256))
def test_the_first_byte_tells_lines_from_frames(first: int) -> None:
    lines = wire.dialect_of(bytes([first])) is LINES
    assert lines == (first == ord("{"))
    assert not lines or first << 24 > FRAME_BYTES_MAX


def refused(body: dict[str, Any] | bytes) -> list[wire.Error | None]:
    """What is told of a body that is no request, as a frame and as a line; of bytes, as a line."""
    told: list[wire.Error | None] = []
    line = body if isinstance(body, bytes) else msgspec.json.encode(body)
    for dialect, said in ((FRAMES, msgspec.msgpack.encode(body)), (LINES, line)):
        if dialect is LINES or isinstance(body, dict):
            with pytest.raises(ProtocolError) as raised:
                dialect.decode(said)
            told.append(dialect.refusal_of(said, raised.value))
    return told


def test_a_field_that_is_wrong_is_told_to_the_request_it_is_of() -> None:
    for error in refused({"type": "get", "rid": 7, "id": 5}):
        assert error == wire.Error(
            7, "invalid_request", "not a request: Expected `str`, got `int` - at `$.id`"
        )


def test_a_request_of_a_later_version_is_refused_and_named() -> None:
    for error in refused({"type": "foretell", "rid": 7}):
        assert error is not None
        assert (error.rid, error.code) == (7, "protocol")
        assert "'foretell'" in error.message


@pytest.mark.parametrize(
    "body", [{"type": "get"}, {"type": "get", "rid": "1"}, {"type": "get", "rid": 0, "id": 1}]
)
def test_what_does_not_say_whose_it_is_is_told_to_nobody(body: dict[str, Any]) -> None:
    assert not any(refused(body))


@pytest.mark.parametrize("text", [rb"\ud800", rb"\\\uDFFFx", rb"\ud800\u0041", b"\xff"])
def test_half_a_surrogate_pair_harms_its_own_request_alone(text: bytes) -> None:
    [error] = refused(b'{"type":"get","id":"%s","rid":7}' % text)
    assert error is not None
    assert (error.rid, error.code) == (7, "invalid_request")
    assert "Unicode" in error.message


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="over the limit"):
        wire.encode_frame(wire.Chunk(1, "id", text="x" * FRAME_BYTES_MAX))


@given(st.binary())
def test_any_body_is_a_message_or_a_protocol_error(body: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_reply):
        with contextlib.suppress(ProtocolError):
            decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        msgspec.msgpack.encode({"type": "no such request", "rid": 1}),
        msgspec.msgpack.encode({"type": "get"}),
        msgspec.msgpack.encode({"type": "get", "rid": "1"}),
        msgspec.msgpack.encode({"type": "welcome", "rid": 1}),
        wire.encode_frame(wire.GetStatus(1))[HEADER_BYTES:] + b"\xc0",
        b"\x91" * 1_000_000,
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a request"):
        wire.decode_request(body)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    body: dict[str, Any] = {"type": "get", "rid": 1, "id": "a", "later": True}
    assert wire.decode_request(msgspec.msgpack.encode(body)) == wire.Get(1, "a")


def test_an_error_is_the_same_error_on_the_other_side() -> None:
    told = wire.refusal(4, ServerBusy("full", retry_after=0.5))
    error = from_code(told.code, told.message, told.retry_after)
    assert (type(error), str(error), error.retry_after) == (ServerBusy, "full", 0.5)


def _all_kinds(kind: type[AutoGLMError]) -> list[type[AutoGLMError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _all_kinds(child))]


@pytest.mark.parametrize("kind", _all_kinds(AutoGLMError))
def test_every_kind_of_error_has_a_code_of_its_own(kind: type[AutoGLMError]) -> None:
    assert type(from_code(kind.code, "why")) is kind


def test_an_error_of_a_later_version_is_a_server_error() -> None:
    error = from_code("no such code", "why")
    assert (type(error).__name__, error.exit_code) == ("ServerError", 3)


@pytest.mark.parametrize(("kind", "field"), [("submit", "tasks"), ("submit_lines", "lines")])
def test_a_list_that_no_request_needs_is_refused_before_it_is_decoded(
    kind: str, field: str
) -> None:
    body = msgspec.msgpack.encode({"type": kind, "rid": 1, field: []})
    assert body.endswith(b"\x90")
    endless = body[:-1] + b"\xdd" + (2**32 - 1).to_bytes(4, "big")
    with pytest.raises(ProtocolError, match="length"):
        wire.decode_request(endless)
