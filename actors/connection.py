"""One client's connection: bytes in, frames out, and never more memory than a bound.

Many requests come with one read and many replies go with one write. A client that does not read
loses its chunks first (they are provisional), then its connection. One that asks for too much at
once is simply not read from for a while: the back-pressure is the socket's own.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import struct
from collections.abc import Awaitable, Callable
from functools import lru_cache

import anyio
from anyio.abc import Listener, SocketAttribute, SocketStream, TaskGroup

from autoglm.errors import ProtocolError
from autoglm.wire import FRAMES, Chunk, Forget, Reply, Request, dialect_of, refusal
from runtime.bell import Bell
from runtime.clock import Clock

log = logging.getLogger("autoglm.frontdoor")

READ_BYTES = 256 * 1024
FULL_HOUSE_PAUSE_S = 0.2
PENDING_MAX = 2048
"""Requests of one connection under way; at this many we stop reading from it."""
LAST_WORDS_S = 1.0
"""How long a client that broke the protocol gets what it asked for before, and then how long it
may take to read why its connection ends.
"""
OUTBOX_BYTES_MAX = 64 * 1024 * 1024
CHUNK_OUTBOX_BYTES_MAX = 1024 * 1024
"""A reader this far behind gets no chunks until it has caught up."""


class Connection:
    """Its state is the frontdoor's; `serve` runs as long as the client stays."""

    def __init__(
        self, stream: SocketStream, on_request: Callable[[Connection, Request], None]
    ) -> None:
        self.tenant: str | None = None
        """None: the operator, who sees every tenant."""
        self.by: str | None = None
        """The user on the other side, by name; known once `serve` runs."""
        self.greeted = False
        self.pending: set[int] = set()
        """Requests that are still to be answered."""
        self.watching: dict[int, set[str]] = {}
        """Tasks whose end a request still waits for, by `rid`."""
        self.closed = False
        self._stream = stream
        self._dialect = FRAMES
        """Until the first byte says otherwise."""
        self._splitter = FRAMES.splitter()
        self._heard = False
        self._on_request = on_request
        self._outbox: list[bytes] = []
        self._outbox_bytes = 0
        self._outbox_bell = Bell()
        self._sending = anyio.Lock()
        self._room = anyio.Event()

    async def serve(self) -> None:
        """Until the client leaves or breaks the protocol. Raises nothing."""
        try:
            user = _user_of(self._stream)
            if user not in (0, os.getuid()):
                return
            self.by = _name_of(user)
            async with anyio.create_task_group() as group:
                group.start_soon(self._write)
                await self._read()
                group.cancel_scope.cancel()
        except* (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
            pass  # the client is gone; whoever waited for an answer does not any more
        finally:
            self.closed = True
            await anyio.aclose_forcefully(self._stream)

    def take(self, data: bytes) -> None:
        """Start on the requests that `data` completes, in order.

        Raises ProtocolError when the connection can't go on; those before it are under way.
        """
        if data and not self._heard:
            self._heard = True
            self._dialect = dialect_of(data)
            self._splitter = self._dialect.splitter()
        for body in self._splitter.feed(data):
            try:
                request = self._dialect.decode(body)
            except ProtocolError as error:
                self._misread(body, error)
            else:
                self._take(request)

    def reply(self, message: Reply, *, last: bool = True) -> None:
        """Queue a reply; `last`: nothing more will be said of its request."""
        if self.closed:
            return
        behind = self._outbox_bytes
        if isinstance(message, Chunk) and behind > CHUNK_OUTBOX_BYTES_MAX:
            return
        if behind > OUTBOX_BYTES_MAX:
            log.warning("a client does not read its replies: closing its connection")
            self.close()
            return
        try:
            frame = self._dialect.encode(message)
        except ProtocolError as error:
            frame = self._dialect.encode(refusal(message.rid, error))
        self._outbox.append(frame)
        self._outbox_bytes += len(frame)
        self._outbox_bell.ring()
        if last:
            self.watching.pop(message.rid, None)
            self.finished(message.rid)

    def finished(self, rid: int) -> None:
        """Request `rid` is under way no longer."""
        self.pending.discard(rid)
        self._room.set()

    def close(self) -> None:
        self.closed = True
        self._outbox_bell.ring()

    async def _read(self) -> None:
        while not self.closed:
            try:
                data = await self._stream.receive(READ_BYTES)
            except anyio.EndOfStream:
                return
            try:
                self.take(data)
            except ProtocolError as error:
                with anyio.move_on_after(LAST_WORDS_S):
                    await self._fewer_pending(1)
                self.reply(refusal(0, error))
                with anyio.move_on_after(LAST_WORDS_S):
                    await self._flush()
                return
            await self._fewer_pending(PENDING_MAX)

    async def _fewer_pending(self, limit: int) -> None:
        """Return when fewer than `limit` requests are under way."""
        while len(self.pending) >= limit and not self.closed:
            self._room = anyio.Event()
            await self._room.wait()

    def _take(self, request: Request) -> None:
        if not isinstance(request, Forget):
            self._check_fresh(request.rid)
            self.pending.add(request.rid)
        self._on_request(self, request)

    def _misread(self, body: bytes, error: ProtocolError) -> None:
        """Refuse what is no request, and go on, if it says whose it is. Raises ProtocolError."""
        refused = self._dialect.refusal_of(body, error) if self.greeted else None
        if refused is None:
            raise error
        self._check_fresh(refused.rid)
        self.reply(refused)

    def _check_fresh(self, rid: int) -> None:
        if rid < 1 or rid in self.pending:
            raise ProtocolError(f"rid {rid} is not a fresh positive number")

    async def _write(self) -> None:
        while not self.closed:
            await self._outbox_bell.wait_rung()
            await self._flush()
        await anyio.aclose_forcefully(self._stream)

    async def _flush(self) -> None:
        async with self._sending:  # a stream takes one sender at a time
            while self._outbox:
                frames, self._outbox = self._outbox, []
                data = b"".join(frames)
                await self._stream.send(data)
                self._outbox_bytes -= len(data)


async def let_in(
    listener: Listener[SocketStream],
    handler: Callable[[SocketStream], Awaitable[None]],
    group: TaskGroup,
    clock: Clock,
) -> None:
    """Handle each connection in `group`. Without a file descriptor left, those who knock wait."""
    while True:
        try:
            await listener.serve(handler, group)
        except anyio.BrokenResourceError as error:
            log.warning("can't take another connection: %s", error.__cause__)
            await clock.sleep(FULL_HOUSE_PAUSE_S)


def _user_of(stream: SocketStream) -> int:
    """Let in is only the user who runs the server, and root. The folder's mode says so already."""
    raw = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - not Django's
    credentials = raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, user, _ = struct.unpack("3i", credentials)
    return user


@lru_cache(maxsize=16)
def _name_of(user: int) -> str:
    """As the machine knows it; the number where it has no name."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)
