"""A server on a real socket that says what a test tells it to, wrong or right."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import SocketStream

from autoglm import wire


class HangUp(Exception):
    """Raised by a script: close the connection without a reply."""


Script = Callable[[wire.Request], list[wire.Reply]]


@asynccontextmanager
async def scripted(script: Script) -> AsyncGenerator[Path]:
    """A server that greets by itself and asks `script` for all other replies; its socket."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "s"
        listener = await anyio.create_unix_listener(socket)
        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, _talker(script))
            yield socket
            group.cancel_scope.cancel()


def _talker(script: Script) -> Callable[[SocketStream], object]:
    async def talk(stream: SocketStream) -> None:
        splitter = wire.FrameSplitter()
        async with stream:
            try:
                while True:
                    for body in splitter.feed(await stream.receive()):
                        for reply in _replies(script, wire.decode_request(body)):
                            await stream.send(wire.encode_frame(reply))
            except (HangUp, anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    return talk


def _replies(script: Script, request: wire.Request) -> list[wire.Reply]:
    if isinstance(request, wire.Hello):
        return [wire.Welcome(request.rid, "0", engine="simulated", model="tiny")]
    return script(request)
