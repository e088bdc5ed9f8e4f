"""Frames between two processes: whole, in order for each sender, whoever else sends."""

from __future__ import annotations

import socket

import anyio
import pytest

from runtime.channel import ChannelClosed, SocketChannel


async def test_two_who_send_at_once_take_turns_when_the_socket_is_full() -> None:
    ours, theirs = socket.socketpair()
    near, far = await SocketChannel.of(ours), await SocketChannel.of(theirs)
    big, small = b"b" * 4_000_000, b"s"
    got: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(near.send, big)
        group.start_soon(near.send, small)
        while len(got) < 2:
            got += await far.receive()
    assert sorted(got) == [big, small]
    await near.aclose()
    await far.aclose()


async def test_who_sends_to_nobody_is_told() -> None:
    ours, theirs = socket.socketpair()
    near, far = await SocketChannel.of(ours), await SocketChannel.of(theirs)
    await far.aclose()
    with pytest.raises(ChannelClosed):
        await near.send(b"x")
    with pytest.raises(ChannelClosed):
        await near.receive()
    await near.aclose()
