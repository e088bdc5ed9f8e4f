from __future__ import annotations

import asyncio
import socket as socketlib
import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from autoglm import wire
from autoglm.connection import Connection, connect
from autoglm.errors import ProtocolError, ServerBusy, ServerUnavailable
from autoglm.types import Answer, Task, TaskState
from tests.scripted import HangUp, scripted


def answer(rid: int, id: str) -> wire.AnswerReply:
    return wire.AnswerReply(rid, Answer(Task(id, TaskState.PENDING)))


async def test_replies_find_their_requests_in_whatever_order_they_come() -> None:
    held: list[wire.Get] = []

    def script(request: wire.Request) -> list[wire.Reply]:
        assert isinstance(request, wire.Get)
        held.append(request)
        if len(held) < 3:
            return []
        return [answer(get.rid, get.id) for get in reversed(held)]

    got: dict[str, str] = {}
    async with scripted(script) as socket, anyio.create_task_group() as group:
        connection = await connect(socket, None, group)

        async def ask(id: str) -> None:
            reply = await connection.request(wire.Get(0, id))
            assert isinstance(reply, wire.AnswerReply)
            assert reply.answer
            got[id] = reply.answer.task.id

        async with anyio.create_task_group() as asking:
            for id in "abc":
                asking.start_soon(ask, id)
        group.cancel_scope.cancel()
    assert got == {"a": "a", "b": "b", "c": "c"}


async def test_a_refusal_is_raised_as_its_own_error_with_its_pause() -> None:
    def script(request: wire.Request) -> list[wire.Reply]:
        return [wire.Error(request.rid, "busy", "full", retry_after=1.5)]

    async with scripted(script) as socket, anyio.create_task_group() as group:
        connection = await connect(socket, None, group)
        with pytest.raises(ServerBusy, match="full") as raised:
            await connection.request(wire.GetStatus(0))
        assert raised.value.retry_after == 1.5
        group.cancel_scope.cancel()


async def test_a_lost_connection_fails_all_that_was_under_way_and_all_that_follows() -> None:
    asked = 0

    def script(request: wire.Request) -> list[wire.Reply]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise HangUp
        return []

    failed: list[str] = []
    async with scripted(script) as socket, anyio.create_task_group() as group:
        connection = await connect(socket, None, group)

        async def ask() -> None:
            try:
                await connection.request(wire.GetStatus(0))
            except ServerUnavailable as error:
                failed.append(str(error))

        async with anyio.create_task_group() as asking:
            asking.start_soon(ask)
            asking.start_soon(ask)
        await ask()
        assert connection.lost
        group.cancel_scope.cancel()
    assert failed == ["the server closed the connection"] * 3


async def test_a_request_that_is_given_up_is_forgotten_by_the_server_too() -> None:
    seen: list[wire.Request] = []
    forgotten = anyio.Event()

    def script(request: wire.Request) -> list[wire.Reply]:
        seen.append(request)
        if isinstance(request, wire.Forget):
            forgotten.set()
        return []

    async with scripted(script) as socket, anyio.create_task_group() as group:
        connection = await connect(socket, None, group)
        async with anyio.create_task_group() as asking:
            asking.start_soon(connection.request, wire.Get(0, "x", wait=True))
            await anyio.wait_all_tasks_blocked()
            asking.cancel_scope.cancel()
        await forgotten.wait()
        group.cancel_scope.cancel()
    get, forget = seen
    assert isinstance(forget, wire.Forget)
    assert forget.target == get.rid


async def test_a_server_that_could_not_read_us_ends_the_connection() -> None:
    def script(request: wire.Request) -> list[wire.Reply]:
        return [wire.Error(0, "protocol", "what was that")]

    async with scripted(script) as socket, anyio.create_task_group() as group:
        connection = await connect(socket, None, group)
        with pytest.raises(ProtocolError, match="what was that"):
            await connection.request(wire.GetStatus(0))
        assert connection.lost
        group.cancel_scope.cancel()


async def test_another_version_of_the_protocol_is_refused() -> None:
    async def old(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(wire.encode_frame(wire.Welcome(1, "9", protocol=99)))

    async with scripted(lambda _: []) as socket:
        path = socket.with_name("old")
        async with (
            await anyio.create_unix_listener(path) as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, old)
            with pytest.raises(ProtocolError, match="another version"):
                await connect(path, None, group)
            group.cancel_scope.cancel()


async def test_an_end_that_both_directions_see_is_no_complaint_of_the_event_loop() -> None:
    """A server that dies while much is sent: nothing may come on stderr, whatever the moment."""
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complaints.append(context))
    for _ in range(20):
        with socketlib.socket(socketlib.AF_UNIX) as listener, tempfile.TemporaryDirectory() as name:
            listener.bind(f"{name}/s")
            listener.listen()
            async with anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, greet_and_die, listener)
                connection = await connect(Path(name) / "s", None, group)
                with pytest.raises(ServerUnavailable):
                    await send_for_ever(connection)
    assert complaints == []


async def send_for_ever(connection: Connection) -> None:
    while True:
        await connection.open(wire.Get(0, "a" * 1000))
        await anyio.lowlevel.checkpoint()


def greet_and_die(listener: socketlib.socket) -> None:
    stream, _ = listener.accept()
    with stream:
        stream.recv(100)
        stream.sendall(wire.encode_frame(wire.Welcome(1)))
        stream.recv(65536)
