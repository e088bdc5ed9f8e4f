"""Sockets without a kernel: streams that delay, cut and join what is sent, and break with their
process. The surface is anyio's, as far as the server and the client use it.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import anyio
import anyio.abc
from anyio.abc import SocketAttribute

from runtime.channel import ChannelClosed
from tests.simulation.loop import CURRENT, Process
from tests.simulation.world import Universe

PIPE_BYTES_MAX = 64 * 1024


class Pipe:
    """One direction: items arrive in order, each after a delay; then comes the end."""

    def __init__(self, universe: Universe, rng: random.Random, delay_s: float) -> None:
        self._universe = universe
        self._rng = rng
        self._delay_s = delay_s
        self._arrives_at = 0.0
        self._on_the_way: deque[bytes] = deque()
        self._arrived: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._writers: deque[asyncio.Future[None]] = deque()
        self._bytes = 0
        self.bytes_left: int | None = None
        """After so many bytes the connection breaks; None: it does not."""
        self.on_cut: Callable[[], object] = _nothing
        self.ended = False
        """The writer is gone and everything it wrote has arrived."""
        self.broken = False
        """The reader is gone."""

    async def write(self, data: bytes) -> None:
        """Raises BrokenPipeError when nobody will read it."""
        await asyncio.sleep(0)
        while self._bytes >= PIPE_BYTES_MAX and not self.broken:
            turn = asyncio.get_running_loop().create_future()
            self._writers.append(turn)
            await turn
        if self.broken:
            raise BrokenPipeError
        if self.bytes_left is not None:
            data = data[: self.bytes_left]
            self.bytes_left -= len(data)
            if not self.bytes_left:
                self._after_delay(self.on_cut)
        self._bytes += len(data)
        self._on_the_way.append(data)
        self._after_delay(self._arrive)

    async def read(self) -> list[bytes]:
        """All that has arrived; nothing only at the end."""
        await asyncio.sleep(0)
        while not self._arrived and not self.ended:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        items = list(self._arrived)
        self._arrived.clear()
        self._bytes -= sum(map(len, items))
        self._wake_writers()
        return items

    def unread(self, data: bytes) -> None:
        self._arrived.appendleft(data)
        self._bytes += len(data)

    def close_writing(self) -> None:
        self._after_delay(self._end)

    def close_reading(self) -> None:
        self.broken = True
        self._wake_writers()

    def cut(self) -> None:
        """Neither end can reach the other any more."""
        self._on_the_way.clear()
        self.broken = self.ended = True
        self._wake_writers()
        _wake(self._reader)

    def _after_delay(self, call: Callable[[], object]) -> None:
        loop = self._universe.loop
        at = max(self._arrives_at, loop.time() + self._rng.uniform(0, self._delay_s))
        self._arrives_at = at
        self._universe.later(at - loop.time(), call)

    def _wake_writers(self) -> None:
        """All of them: who finds no room waits again."""
        while self._writers:
            _wake(self._writers.popleft())

    def _arrive(self) -> None:
        # Whichever call comes first: what was sent first has arrived.
        if self._on_the_way:
            self._arrived.append(self._on_the_way.popleft())
        _wake(self._reader)

    def _end(self) -> None:
        self._arrived.extend(self._on_the_way)
        self._on_the_way.clear()
        self.ended = True
        _wake(self._reader)


def _nothing() -> None:
    """What happens to a connection that is never cut."""


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


class End:
    """One end of a connection. It belongs to the process that holds it and closes with it."""

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.closed = False

    def held_by(self, process: Process | None) -> None:
        if process is not None:
            if process.dead:
                self.close()
            process.on_death.append(self.close)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.incoming.close_reading()
            self.outgoing.close_writing()
            self.incoming.ended = True


def pair(universe: Universe, name: str, delay_s: float) -> tuple[End, End]:
    rng = universe.rng(name)
    there, back = Pipe(universe, rng, delay_s), Pipe(universe, rng, delay_s)
    return End(back, there), End(there, back)


class MemoryStream(anyio.abc.SocketStream):
    """A byte stream; what is sent may arrive in pieces."""

    def __init__(self, end: End, rng: random.Random) -> None:
        self._end = end
        self._rng = rng
        self._sending = False

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return {SocketAttribute.raw_socket: _SameUser}

    @property
    def _raw_socket(self) -> Any:
        return _SameUser()

    async def send(self, item: bytes) -> None:
        if self._sending:
            raise anyio.BusyResourceError("writing to")
        if self._end.closed:
            raise anyio.ClosedResourceError
        self._sending = True
        try:
            cut = self._rng.randrange(len(item) + 1)
            for piece in (item[:cut], item[cut:]):
                if piece:
                    await self._end.outgoing.write(piece)
        except BrokenPipeError:
            raise anyio.BrokenResourceError from None
        finally:
            self._sending = False

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if self._end.closed:
            raise anyio.ClosedResourceError
        data = b"".join(await self._end.incoming.read())
        if not data:
            raise anyio.ClosedResourceError if self._end.closed else anyio.EndOfStream
        if len(data) > max_bytes:
            self._end.incoming.unread(data[max_bytes:])
        return data[:max_bytes]

    async def send_eof(self) -> None:
        self._end.outgoing.close_writing()

    async def aclose(self) -> None:
        self._end.close()
        await asyncio.sleep(0)


class _SameUser:
    """Stands for the raw socket where the server asks who is at the other end: root."""

    def getsockopt(self, *_: int) -> bytes:
        return struct.pack("3i", 1, 0, 0)


class Network:
    """The one address there is. Who connects while nobody listens is refused. `cuts` connections
    break after some bytes, at both ends: what is on the way is lost, frame or half a frame.
    """

    def __init__(self, universe: Universe, delay_s: float, cuts: int = 0) -> None:
        self._universe = universe
        self._delay_s = delay_s
        self._cuts = cuts
        self._cut_rng = universe.rng("cut connections")
        self._count = 0
        self.listener: MemoryListener | None = None

    async def listen(self) -> anyio.abc.Listener[anyio.abc.SocketStream]:
        listener = self.listener = MemoryListener(self)
        process = CURRENT.get()
        assert process is not None, "a server is a process"
        process.on_death.append(listener.close)
        return listener

    async def connect(self, _path: object) -> MemoryStream:
        """In place of `anyio.connect_unix`."""
        await asyncio.sleep(0)
        if self.listener is None:
            raise ConnectionRefusedError
        self._count += 1
        name = f"connection {self._count}"
        near, far = pair(self._universe, name, self._delay_s)
        near.held_by(CURRENT.get())
        if self._cuts and self._cut_rng.random() < 0.5:
            self._cuts -= 1
            self._cut(near)
        self.listener.offer(MemoryStream(far, self._universe.rng(f"{name} far")), far)
        return MemoryStream(near, self._universe.rng(f"{name} near"))

    def _cut(self, near: End) -> None:
        rng = self._cut_rng
        both = near.incoming, near.outgoing
        pipe = rng.choice(both)
        pipe.bytes_left = 1 + int(10 ** rng.uniform(0, 4))
        pipe.on_cut = lambda: [each.cut() for each in both]


class MemoryListener(anyio.abc.Listener[anyio.abc.SocketStream]):
    def __init__(self, network: Network) -> None:
        self._network = network
        self._backlog: deque[tuple[MemoryStream, End]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._process = CURRENT.get()

    def offer(self, stream: MemoryStream, end: End) -> None:
        end.held_by(self._process)
        self._backlog.append((stream, end))
        _wake(self._waiter)

    async def serve(
        self,
        handler: Callable[[anyio.abc.SocketStream], Any],
        task_group: anyio.abc.TaskGroup | None = None,
    ) -> None:
        assert task_group is not None, "the server gives its own"
        while True:
            while not self._backlog:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            task_group.start_soon(handler, self._backlog.popleft()[0])

    async def aclose(self) -> None:
        self.close()

    def close(self) -> None:
        for _, end in self._backlog:
            end.close()
        self._backlog.clear()
        if self._network.listener is self:
            self._network.listener = None


class MemoryChannel:
    """runtime.channel.Channel between the server and an engine host."""

    def __init__(self, end: End) -> None:
        self._end = end

    async def send(self, body: bytes) -> None:
        try:
            await self._end.outgoing.write(body)
        except BrokenPipeError:
            raise ChannelClosed from None

    async def receive(self) -> Iterable[bytes]:
        bodies = await self._end.incoming.read()
        if not bodies:
            raise ChannelClosed
        return bodies

    async def aclose(self) -> None:
        self._end.close()
