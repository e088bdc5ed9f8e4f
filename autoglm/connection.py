"""One connection to a server: many requests in flight, replies as they come.

    request() ─┐                                 ┌─▶ Channel of rid 1
    open() ────┼─▶ outbox ─▶ writer ═ socket ═ reader ─▶ Channel of rid 2 …
    send_nowait┘

The writer sends all that waits in one call, the reader takes what the kernel holds in one call,
so a thousand requests cost a few system calls. When the connection is lost every open channel
fails with the same reason and the connection stays lost: `autoglm.client` makes a new one.
"""

from __future__ import annotations

import contextlib
from collections import deque
from pathlib import Path

import anyio
import anyio.abc
import msgspec

from autoglm import wire
from autoglm.errors import (
    AutoGLMError,
    ProtocolError,
    ServerError,
    ServerNotRunning,
    ServerUnavailable,
    from_code,
)

READ_BYTES = 256 * 1024
UNSENT_BYTES_MAX = 4 * 1024 * 1024
"""Above this, new requests wait until the server has read some."""
GREETING_TIMEOUT_S = 5


class Channel:
    """The replies to one request, in order."""

    def __init__(self, connection: Connection, rid: int) -> None:
        self.rid = rid
        self._connection = connection
        self._replies: deque[wire.Reply] = deque()
        self._arrived: anyio.Event | None = None
        self._failure: AutoGLMError | None = None

    async def receive(self) -> wire.Reply:
        """The next reply. Raises what the server refused it with, or why the connection ended."""
        while not self._replies:
            if self._failure:
                raise self._failure
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self._replies.popleft()

    def close(self) -> None:
        """No more replies are wanted; the server is told, if it might still send some."""
        self._connection.forget(self.rid)

    def deliver(self, reply: wire.Reply) -> None:
        self._replies.append(reply)
        self._wake()

    def fail(self, error: AutoGLMError) -> None:
        self._failure = error
        self._wake()

    def _wake(self) -> None:
        if self._arrived:
            self._arrived.set()


class Connection:
    """Made by `connect`. Lives in the task group it was given."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._channels: dict[int, Channel] = {}
        self._rid = 0
        self._outbox: list[bytes] = []
        self._unsent_bytes = 0
        self._something_to_send = anyio.Event()
        self._sent = anyio.Event()
        """Replaced each time the writer has emptied the outbox."""
        self._lost: AutoGLMError | None = None
        self._running = anyio.CancelScope()
        """Around the reader and the writer: cancelled when the connection is lost."""
        self.welcome = wire.Welcome(0)

    def __repr__(self) -> str:
        state = f"lost: {self._lost}" if self._lost else "open"
        return f"<Connection {state}, {len(self._channels)} requests in flight>"

    @property
    def lost(self) -> bool:
        return self._lost is not None

    async def request(self, message: wire.Request) -> wire.Reply:
        """Send `message` and return its one reply; its `rid` is chosen here.

        Raises the error the server replied with, ServerUnavailable when the connection is lost.
        When cancelled, the server is told to forget it.
        """
        channel = await self.open(message)
        try:
            reply = await channel.receive()
        except BaseException:
            channel.close()
            raise
        self._channels.pop(channel.rid, None)
        return reply

    async def open(self, message: wire.Request) -> Channel:
        """Send `message`, whose replies come through the channel until it is closed."""
        while self._unsent_bytes > UNSENT_BYTES_MAX and not self._lost:
            await self._sent.wait()
        if self._lost:
            raise self._lost_again()
        self._rid += 1
        channel = Channel(self, self._rid)
        frame = wire.encode_frame(msgspec.structs.replace(message, rid=self._rid))
        self._channels[self._rid] = channel
        self._send_nowait(frame)
        return channel

    def forget(self, rid: int) -> None:
        """Drop the channel of request `rid`."""
        if self._channels.pop(rid, None) and not self._lost:
            self._send_nowait(wire.encode_frame(wire.Forget(0, rid)))

    def lose(self, error: AutoGLMError) -> None:
        """Fail everything in flight with `error`; from now on every request fails so."""
        if not self._lost:
            self._fail(error)
            self._running.cancel()

    def _fail(self, error: AutoGLMError) -> None:
        self._lost = error
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.fail(self._lost_again())
        self._sent.set()

    async def run(self) -> None:
        """Read and write until the connection is lost; never raises what the world does wrong."""
        try:
            with self._running:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._write)
                    tasks.start_soon(self._read)
        finally:
            self.lose(ServerUnavailable("the connection to the server was closed"))
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
                await self._stream.aclose()

    async def _read(self) -> None:
        splitter = wire.FrameSplitter()
        try:
            while True:
                for body in splitter.feed(await self._stream.receive(READ_BYTES)):
                    self._deliver(wire.decode_reply(body))
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self.lose(ServerUnavailable("the server closed the connection"))
        except ProtocolError as error:
            self.lose(error)

    async def _write(self) -> None:
        try:
            while True:
                if not self._outbox:
                    self._something_to_send = anyio.Event()
                    await self._something_to_send.wait()
                data = b"".join(self._outbox)
                self._outbox.clear()
                await self._stream.send(data)
                self._unsent_bytes -= len(data)
                self._sent.set()
                self._sent = anyio.Event()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            # The reader finds the end by itself. Cancelled while the event loop is about to wake
            # it for just that, it would have the loop complain of a future answered twice.
            if not self._lost:
                self._fail(ServerUnavailable("the server closed the connection"))

    def _deliver(self, reply: wire.Reply) -> None:
        if isinstance(reply, wire.Error):
            error = from_code(reply.code, reply.message, reply.retry_after)
            if not reply.rid:
                self.lose(error)
            elif channel := self._channels.pop(reply.rid, None):
                channel.fail(error)
        elif channel := self._channels.get(reply.rid):
            channel.deliver(reply)

    def _send_nowait(self, frame: bytes) -> None:
        self._outbox.append(frame)
        self._unsent_bytes += len(frame)
        self._something_to_send.set()

    def _lost_again(self) -> AutoGLMError:
        """The reason, as an exception of its own for everybody who is told."""
        assert self._lost
        return type(self._lost)(str(self._lost), retry_after=self._lost.retry_after)


async def connect(
    socket: Path,
    tenant: str | None,
    tasks: anyio.abc.TaskGroup,
) -> Connection:
    """A connection on which the server has said welcome; it runs in `tasks`.

    Raises ServerNotRunning when nobody listens, ServerUnavailable when nobody answers,
    ProtocolError when the other side speaks another version.
    """
    try:
        stream = await anyio.connect_unix(socket)
    except (FileNotFoundError, ConnectionRefusedError):
        raise ServerNotRunning(
            f"no server at {socket}; start one with: autoglm serve",
        ) from None
    except OSError as error:
        raise ServerError(f"the socket {socket} can't be used: {error.strerror}") from None
    connection = Connection(stream)
    tasks.start_soon(connection.run)
    try:
        with anyio.fail_after(GREETING_TIMEOUT_S):
            reply = await connection.request(wire.Hello(0, tenant=tenant))
    except TimeoutError:
        failure = ServerUnavailable(f"the server at {socket} took the connection but is silent")
        connection.lose(failure)
        raise failure from None
    except BaseException:
        connection.lose(ServerUnavailable("the connection was given up"))
        raise
    if not isinstance(reply, wire.Welcome) or reply.protocol != wire.PROTOCOL_VERSION:
        failure = ProtocolError(f"the server at {socket} speaks another version of the protocol")
        connection.lose(failure)
        raise failure
    connection.welcome = reply
    return connection
