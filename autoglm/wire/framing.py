"""Frames: how messages travel as bytes. Length-prefixed msgpack, or lines of JSON.

Both say the same messages. The side that connects chooses with its first byte: `{` begins a line,
and no frame, whose length it would put far over the limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Final, NamedTuple, Protocol, get_args

import msgspec

from autoglm.errors import InvalidRequest, ProtocolError
from autoglm.wire.replies import Error, Reply, refusal
from autoglm.wire.requests import Request

FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of one message, the length or the line feed not counted."""
LINE_REPLY_BYTES_MAX: Final = 6 * FRAME_BYTES_MAX
"""A control character that is one byte in a frame is six in JSON."""
HEADER_BYTES: Final = 4
LINES_BEGIN: Final = b"{"

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Not msgpack or JSON, not one of ours, text that is not UTF-8, and nesting without end."""


class _Head(msgspec.Struct):
    """Whose request it is, of one whose fields can't be read."""

    rid: int
    type: str


_TAGS: Final = frozenset(kind.__struct_config__.tag for kind in get_args(Request))
_encoder = msgspec.msgpack.Encoder()
_line_encoder = msgspec.json.Encoder()
_head_decoder = msgspec.msgpack.Decoder(_Head)
_line_head_decoder = msgspec.json.Decoder(_Head)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]..", re.DOTALL)


# Made when first needed: that takes milliseconds, and a client reads no requests.


@cache
def _request_decoder() -> msgspec.msgpack.Decoder[Request]:
    return msgspec.msgpack.Decoder(Request)


@cache
def _line_decoder() -> msgspec.json.Decoder[Request]:
    return msgspec.json.Decoder(Request)


@cache
def _reply_decoder() -> msgspec.msgpack.Decoder[Reply]:
    return msgspec.msgpack.Decoder(Reply)


def _head_of_line(body: bytes) -> _Head:
    """Whatever halves of surrogate pairs its texts may hold."""
    return _line_head_decoder.decode(_SURROGATE.sub(rb"\\ufffd", body))


def encode_frame(message: Request | Reply) -> bytes:
    """The message as one frame. Raises ProtocolError when it is larger than a frame may be."""
    body = _within(_encoder.encode(message), FRAME_BYTES_MAX)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def encode_line(message: Request | Reply) -> bytes:
    """The message as one line of JSON. Raises ProtocolError when it is larger than it may be."""
    return _within(_line_encoder.encode(message), LINE_REPLY_BYTES_MAX) + b"\n"


def decode_request(body: bytes) -> Request:
    """Raises ProtocolError naming what is wrong with the body."""
    return _decoded(_request_decoder(), body)


def decode_line(body: bytes) -> Request:
    """Like `decode_request`, of a line without its line feed."""
    return _decoded(_line_decoder(), body)


def decode_reply(body: bytes) -> Reply:
    """Raises ProtocolError naming what is wrong with the body."""
    try:
        return _reply_decoder().decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"not a reply: {error}") from None


class Splitter(Protocol):
    """Cuts a byte stream into the bodies of messages."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that `data` completes. Raises ProtocolError at one that is too long, after
        those before it: what was whole is answered, however the bytes came.
        """
        ...


class FrameSplitter:
    """Cuts at the lengths; keeps the unfinished rest, bounded by one frame."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._max = frame_bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See Splitter."""
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


class LineSplitter:
    """Cuts at line feeds, which JSON has only between values; keeps the unfinished rest, bounded
    by one line.
    """

    def __init__(self, line_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._max = line_bytes_max
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """See Splitter."""
        *whole, rest = data.split(b"\n")  # only what is new is looked through
        for body in whole:
            self._rest += body
            self._check()
            line, self._rest = bytes(self._rest), bytearray()
            yield line
        self._rest += rest
        self._check()

    def _check(self) -> None:
        if len(self._rest) > self._max:
            raise ProtocolError(f"a line of over {self._max} bytes is over the limit")


class Dialect(NamedTuple):
    """How the messages of one connection are said."""

    splitter: Callable[[], Splitter]
    decode: Callable[[bytes], Request]
    """Raises ProtocolError."""
    encode: Callable[[Reply], bytes]
    """Raises ProtocolError."""
    head: Callable[[bytes], _Head]

    def refusal_of(self, body: bytes, error: ProtocolError) -> Error | None:
        """What to tell who sent `body`, which is no request; None: it does not even say whose it
        would be, and the connection can't go on.
        """
        try:
            head = self.head(body)
        except _UNREADABLE:
            return None
        if head.rid < 1:
            return None
        if head.type not in _TAGS:
            text = f"no request is called {head.type[:40]!r} here: the server may be an older one"
            return refusal(head.rid, ProtocolError(text))
        if not isinstance(error.__context__, msgspec.ValidationError):
            return refusal(head.rid, InvalidRequest("a text of the request is not valid Unicode"))
        return refusal(head.rid, InvalidRequest(str(error)))


FRAMES: Final = Dialect(FrameSplitter, decode_request, encode_frame, _head_decoder.decode)
LINES: Final = Dialect(LineSplitter, decode_line, encode_line, _head_of_line)


def dialect_of(data: bytes) -> Dialect:
    """What is spoken on a connection whose first bytes are `data`."""
    return LINES if data.startswith(LINES_BEGIN) else FRAMES


def _decoded(
    decoder: msgspec.msgpack.Decoder[Request] | msgspec.json.Decoder[Request], body: bytes
) -> Request:
    try:
        return decoder.decode(body)
    except _UNREADABLE as error:
        raise ProtocolError(f"not a request: {error}") from None


def _within(body: bytes, bytes_max: int) -> bytes:
    if len(body) > bytes_max:
        raise ProtocolError(f"a message of {len(body)} bytes is over the limit of {bytes_max}")
    return body
