"""Every parser is total: whatever comes, it understands it or refuses it with an error of ours."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm import wire
from autoglm.batchfile import LineParser
from autoglm.bits import Bits
from autoglm.errors import ConfigError, Conflict, ProtocolError
from autoglm.ids import Ids
from autoglm.resultfile import ResultFile
from autoglm.types import ErrorInfo
from autoglm.wire import FrameSplitter, decode_reply, encode_frame
from runtime.configload import load
from tests.door import Door
from tests.mangled import EXTREMES, HELLO, REQUESTS, altered, damaged, framed, split

BODIES = [encode_frame(request)[wire.HEADER_BYTES :] for request in REQUESTS]
SEEDS = st.randoms(use_true_random=False)

TRIES = settings(max_examples=300, deadline=None)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.close()


def knock(door: Door, pieces: list[bytes]) -> list[wire.Reply]:
    """What the server answers; it raised nothing, broke nothing and left nothing out."""
    visit = door.visit(pieces)
    assert not door.broken
    assert visit.ended is not None or not visit.unanswered
    for reply in visit.replies:
        (body,) = FrameSplitter().feed(encode_frame(reply))
        assert type(decode_reply(body)) is type(reply)
    return visit.replies


# ── frames ───────────────────────────────────────────────────────────────────────────────────


def test_every_kind_of_request_is_among_those_tried() -> None:
    assert {type(request) for request in REQUESTS} == set(wire.Request.__args__)


@TRIES
@given(SEEDS, st.lists(st.sampled_from(BODIES), min_size=1, max_size=4))
def test_a_request_with_any_value_exchanged_is_answered_or_refused(
    door: Door, rng: random.Random, bodies: list[bytes]
) -> None:
    frames = b"".join(framed(altered(altered(body, rng), rng)) for body in bodies)
    knock(door, split(HELLO + frames, rng))


@TRIES
@given(SEEDS, st.lists(st.sampled_from(BODIES), min_size=1, max_size=3))
def test_damaged_bytes_end_at_most_their_own_connection(
    door: Door, rng: random.Random, bodies: list[bytes]
) -> None:
    data = HELLO + b"".join(map(framed, bodies))
    knock(door, split(damaged(data, rng), rng))
    healthy = knock(door, [HELLO + encode_frame(wire.GetStatus(2))])
    assert [type(reply) for reply in healthy] == [wire.Welcome, wire.StatusReply]


@TRIES
@given(SEEDS, st.binary(max_size=60))
def test_what_came_before_garbage_is_answered(
    door: Door, rng: random.Random, garbage: bytes
) -> None:
    asked = HELLO + encode_frame(wire.GetStatus(2)) + encode_frame(wire.Get(3, "nothing"))
    replies = knock(door, split(asked + b"\xff\xff\xff\xff" + garbage, rng))
    assert {reply.rid: type(reply) for reply in replies} == {
        1: wire.Welcome,
        2: wire.StatusReply,
        3: wire.Error,
        0: wire.Error,
    }


@TRIES
@given(SEEDS, st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3))
def test_a_line_with_any_value_exchanged_or_any_byte_damaged_harms_nobody_else(
    door: Door, rng: random.Random, requests: list[wire.Request]
) -> None:
    bodies = [altered(encode_frame(each)[wire.HEADER_BYTES :], rng) for each in requests]
    lines = b"".join(msgspec.json.encode(msgspec.msgpack.decode(body)) + b"\n" for body in bodies)
    greeting = wire.encode_line(wire.Hello(1))
    knock(door, split(greeting + rng.choice((lines, damaged(lines, rng))), rng))
    healthy = knock(door, [greeting + wire.encode_line(wire.GetStatus(2))])
    assert [type(reply) for reply in healthy] == [wire.Welcome, wire.StatusReply]


def test_a_request_that_is_wrong_is_refused_and_those_around_it_are_answered(door: Door) -> None:
    wrong = framed(msgspec.msgpack.encode({"type": "get", "rid": 2, "id": 5}))
    later = framed(msgspec.msgpack.encode({"type": "foretell", "rid": 3}))
    visit = door.visit([HELLO + wrong + later + encode_frame(wire.GetStatus(4))])
    assert visit.ended is None
    assert {reply.rid: type(reply) for reply in visit.replies} == {
        1: wire.Welcome,
        2: wire.Error,
        3: wire.Error,
        4: wire.StatusReply,
    }


@pytest.mark.parametrize("wrong", [{"type": "hello", "tenant": 5}, {"type": "foretell"}])
def test_before_hello_nothing_that_is_wrong_is_let_pass(
    door: Door, wrong: dict[str, object]
) -> None:
    visit = door.visit([framed(msgspec.msgpack.encode(wrong | {"rid": 1}))])
    assert visit.ended is not None


@pytest.mark.parametrize("number", [0, -1, 2**53 + 1, 2**63, 2**64 - 1])
def test_no_line_number_is_answered_with_an_error_that_asks_to_try_again(
    door: Door, number: int
) -> None:
    opened = door.visit([HELLO, encode_frame(wire.OpenJob(2, f"/out {number}", "a", "b"))])
    job = opened.replies[-1]
    assert isinstance(job, wire.JobOpened)
    lines = (wire.JobLine(number, error=ErrorInfo("not_json", "no")),)
    replies = knock(door, [HELLO, encode_frame(wire.SubmitLines(2, job.job, lines))])
    assert isinstance(replies[-1], wire.Error)
    assert (replies[-1].code, replies[-1].retry_after) == ("invalid_request", None)


@TRIES
@given(st.binary(max_size=80), st.sampled_from([b"", b"\x91" * 100_000, b"\x81\xa1x" * 50_000]))
def test_no_bytes_make_a_reply_that_a_client_stumbles_over(data: bytes, nested: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        decode_reply(nested + data)


@TRIES
@given(SEEDS, st.lists(st.binary(max_size=300), max_size=8))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    rng: random.Random, bodies: list[bytes]
) -> None:
    splitter = FrameSplitter()
    pieces = split(b"".join(map(framed, bodies)), rng)
    assert [body for piece in pieces for body in splitter.feed(piece)] == bodies


# ── files ────────────────────────────────────────────────────────────────────────────────────

JSON = st.recursive(
    st.sampled_from([each for each in EXTREMES if not isinstance(each, bytes)])
    | st.text(max_size=5)
    | st.integers(-(10**30), 10**30),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
FIELDS = (
    *("messages", "prompt", "input", "body", "url", "method", "custom_id", "task_id", "priority"),
    *("deadline", "expires", "stop", "temperature", "seed", "max_tokens", "key", "tenant", "model"),
)
LINES = (
    st.binary(max_size=60)
    | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=5).map(
        lambda fields: json.dumps(fields).encode()
    )
    | st.fixed_dictionaries(
        {"body": st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4)},
        optional={"url": st.just("/v1/chat/completions") | JSON},
    ).map(lambda fields: json.dumps(fields).encode())
    | st.sampled_from(
        [
            *(b"[" * 200_000, b'{"a":' * 200_000, b'{"prompt": ' + b"9" * 5000 + b"}"),
            *(b'{"prompt": "\\ud800"}', b'{"prompt": "\xff"}', b"\0" * 50, b"\xef\xbb\xbf{}"),
            b'{"prompt": "x", "seed": 1' + b"0" * 400 + b"}",
        ]
    )
)


@TRIES
@given(LINES, st.integers(1, 3))
def test_every_input_line_is_a_task_or_says_why_it_is_none(line: bytes, number: int) -> None:
    parsed = LineParser("job", Ids(lambda: 0, random.Random(0).getrandbits)).parse(number, line)
    if parsed is not None:
        assert (parsed.task is None) != (parsed.error is None)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(parsed), type=wire.JobLine) == parsed


RESULT_TAILS = (
    st.binary(max_size=40)
    | st.sampled_from(["9" * 5000, "0", "-1", "99999999999999", "\u0663", "", "1"]).map(
        lambda number: f'{{"id":"job-{number}","x":1}}\n'.encode()
    )
    | st.sampled_from([b'{"id":"job-2","x":' + b"[" * 100_000 + b"\n", b"\0" * 4096])
)


@TRIES
@given(st.integers(0, 3), RESULT_TAILS, st.binary(max_size=10))
def test_whatever_a_result_file_ends_with_its_whole_lines_are_kept(
    tmp_path_factory: pytest.TempPathFactory, whole: int, tail: bytes, more: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "out.jsonl"
    lines = [f'{{"id":"job-{number}","x":1}}\n'.encode() for number in range(1, whole + 1)]
    path.write_bytes(b"".join(lines) + tail + more)
    file, kept = ResultFile(path), Bits()
    file.open()
    try:
        for place, (number, _) in enumerate(file.scan("job")):
            assert place >= whole or number == place + 1
            kept.add(number)
        assert len(kept) >= whole
    except Conflict:
        pass  # it holds what another wrote, and is not touched
    finally:
        file.close()


# ── configuration ────────────────────────────────────────────────────────────────────────────

VALUES = st.text(max_size=12) | st.sampled_from(
    [
        *("[1]", "{}", "{1: 2}", "{? {}: 1}", ".nan", ".inf", "1e400", "9" * 6000, "0x", "1:99:99"),
        *("2024-99-99", "!!timestamp x", "!!binary x", "!!int ''", "!!float x", "!!omap 3"),
        *("!!python/object:os.system x", "*x", "&a [*a]", "[" * 3000, "\0", "\ud800", "a: b: c"),
    ]
)
KEYS = st.text(max_size=8) | st.sampled_from(
    [
        *("engine", "engine.kind", "engine.model", "engine.max_num_seqs", "engine.simulated"),
        *("engine.simulated.load_s", "batch.window_ms", "scheduler.policy", "retry.max_attempts"),
        *("queues", "scheduler", "engine.dtype", "engine.threads", "a.b.c"),
    ]
)


@TRIES
@given(st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=3))
def test_every_setting_is_taken_or_refused(given_settings: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        load(None, given_settings)


@TRIES
@given(
    st.binary(max_size=60)
    | st.tuples(KEYS, VALUES).map(": ".join).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_every_configuration_file_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    file = Path(tmp_path_factory.getbasetemp() / "config.yaml")
    file.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load(file)
