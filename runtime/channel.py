"""Frames between two processes: what the engine host and the server speak through."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Protocol

import anyio
from anyio.abc import SocketStream

from autoglm.wire import HEADER_BYTES, FrameSplitter
from runtime.transport import TransportStream

_READ_BYTES = 256 * 1024
_FRAME_BYTES_MAX = 256 * 1024 * 1024  # our own processes: a bound against nonsense only


class ChannelClosed(Exception):
    """The other side is gone."""


class Channel(Protocol):
    async def send(self, body: bytes) -> None:
        """Raises ChannelClosed."""
        ...

    async def receive(self) -> Iterable[bytes]:
        """At least one body, and all that came with it. Raises ChannelClosed."""
        ...

    async def aclose(self) -> None: ...


class SocketChannel:
    """Length-prefixed frames over a connected socket; the framing is that of `autoglm.wire`.

    Any number of tasks may send: while the socket is full they take turns, frame by frame.
    """

    def __init__(self, stream: SocketStream) -> None:
        self._stream = stream
        self._splitter = FrameSplitter(_FRAME_BYTES_MAX)
        self._sending = anyio.Lock(fast_acquire=True)  # the stream refuses a second sender

    @classmethod
    async def of(cls, connected: socket.socket) -> SocketChannel:
        return cls(await TransportStream.of(connected))

    async def send(self, body: bytes) -> None:
        try:
            async with self._sending:
                await self._stream.send(len(body).to_bytes(HEADER_BYTES, "big") + body)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise ChannelClosed from error

    async def receive(self) -> Iterable[bytes]:
        bodies: list[bytes] = []
        while not bodies:
            try:
                bodies.extend(self._splitter.feed(await self._stream.receive(_READ_BYTES)))
            except (
                anyio.EndOfStream,
                anyio.BrokenResourceError,
                anyio.ClosedResourceError,
            ) as error:
                raise ChannelClosed from error
        return bodies

    async def aclose(self) -> None:
        await self._stream.aclose()
