"""Frames: how messages travel as bytes. Length-prefixed msgpack, both ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from autoglm.errors import ProtocolError
from autoglm.wire.replies import Reply
from autoglm.wire.requests import Request

FRAME_BYTES_MAX: Final = 32 * 1024 * 1024
HEADER_BYTES: Final = 4

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
