"""Clients that speak nonsense, fall silent or do not read: they harm themselves alone."""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import anyio
import pytest

from autoglm import Client, wire
from autoglm.ids import Ids
from autoglm.types import Message, Sampling, TaskSpec
from autoglm.wire import FRAME_BYTES_MAX, HEADER_BYTES, Hello, Reply, decode_reply, encode_frame
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=2")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, *INSTANT) as server:
        yield server


class RawClient:
    """Bytes to the server's socket, and what it says to them."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(server.socket))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def greet(self) -> None:
        self.send(encode_frame(Hello(1)))
        assert isinstance(self.reply(), wire.Welcome)

    def reply(self) -> Reply:
        size = int.from_bytes(self._exactly(HEADER_BYTES), "big")
        return decode_reply(self._exactly(size))

    def is_answered(self) -> bool:
        """Whether the server says something within the time that it takes for many."""
        return bool(select.select([self._socket], [], [], 0.02)[0])

    def last_words(self) -> Reply:
        """The reply after which the server ends the connection."""
        reply = self.reply()
        assert self._socket.recv(1) == b""
        return reply

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._socket.recv(size - len(data))
            assert more, "the server closed the connection"
            data += more
        return data


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER_BYTES, "big") + body


NONSENSE = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "oversized": (FRAME_BYTES_MAX + 1).to_bytes(HEADER_BYTES, "big"),
    "empty_body": frame(b""),
    "not_msgpack": frame(b"\xc1" * 40),
    "no_request": frame(b"\x81\xa4type\xa7unknown"),
    "a_reply": encode_frame(wire.Welcome(1)),
    "deeply_nested": frame(b"\x91" * 100_000 + b"\x90"),
    "endless_array": frame(b"\xdd\xff\xff\xff\xff"),
    "rid_0": encode_frame(Hello(0)),
    "negative_rid": encode_frame(Hello(-5)),
    "other_protocol": encode_frame(Hello(1, protocol=99)),
    "before_hello": encode_frame(wire.GetStatus(1)),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_ends_its_sender_s_connection_alone(server: Server, name: str) -> None:
    async with Client(server.socket) as bystander:
        with RawClient(server) as raw:
            raw.send(NONSENSE[name])
            refused = await anyio.to_thread.run_sync(raw.reply)
        assert isinstance(refused, wire.Error)
        assert refused.code in {"protocol", "invalid_request"}
        task = await bystander.submit("hello")
        assert (await bystander.result(task.id)).text


def test_nonsense_after_a_good_request_does_not_undo_it(server: Server) -> None:
    spec = TaskSpec(Ids().mint(), messages=(Message("user", "hello"),))
    with RawClient(server) as raw:
        raw.greet()
        raw.send(encode_frame(wire.Submit(2, (spec,))))
        assert isinstance(raw.reply(), wire.Submitted)
        raw.send(NONSENSE["not_msgpack"])
        assert isinstance(raw.last_words(), wire.Error)
    assert server.ask("get", spec.id, "--wait").returncode == 0


async def test_a_rid_that_is_taken_is_refused(tmp_path: Path) -> None:
    with Server(
        tmp_path, "--engine", "simulated", "--set", "engine.simulated.load_s=600"
    ) as server:
        async with Client(server.socket) as client:
            task = await client.submit("never answered")
        with RawClient(server) as raw:
            raw.greet()
            raw.send(encode_frame(wire.Get(2, task.id, wait=True)) * 2)
            refused = raw.last_words()
    assert isinstance(refused, wire.Error)
    assert "rid 2" in refused.message


async def test_half_a_frame_keeps_nobody_waiting(server: Server) -> None:
    whole = encode_frame(Hello(1))
    with RawClient(server) as silent, RawClient(server) as gone:
        silent.send(whole[:-3])
        gone.send(whole[:2])
        gone.__exit__()
        async with Client(server.socket) as client:
            results = [result async for result in client.map(map(str, range(100)))]
        assert len(results) == 100
        silent.send(whole[-3:])
        assert isinstance(silent.reply(), wire.Welcome)


async def test_a_byte_at_a_time_is_as_good_as_all_at_once(server: Server) -> None:
    with RawClient(server) as raw:
        for byte in encode_frame(Hello(1)):
            raw.send(bytes([byte]))
        assert isinstance(raw.reply(), wire.Welcome)


async def test_a_reader_that_stalls_costs_the_others_nothing(tmp_path: Path) -> None:
    ids = Ids()
    tasks = tuple(
        TaskSpec(
            ids.mint(),
            messages=(Message("user", f"{n} [[tokens:3000]]"),),
            sampling=Sampling(),
            stream=True,
        )
        for n in range(32)
    )
    with Server(tmp_path, *SLOW) as server, RawClient(server) as stalled:
        stalled.greet()
        stalled.send(encode_frame(wire.Submit(2, tasks, follow=True)))
        with anyio.fail_after(50):
            async with Client(server.socket) as client:
                results = [r async for r in client.map(f"hello {n}" for n in range(300))]
                assert len(results) == 300
                for spec in tasks:
                    await client.result(spec.id)
        assert resident_mb(server.pid) < 200


async def test_a_client_that_asks_and_never_reads_takes_a_bounded_memory(server: Server) -> None:
    async with Client(server.socket) as client:
        long = await client.submit("[[tokens:30000]]")
        assert len((await client.result(long.id)).text) > 30_000
        before = resident_mb(server.pid)
        with RawClient(server) as raw:
            raw.greet()
            with contextlib.suppress(TimeoutError, ConnectionError):
                for rid in range(2, 30_000):
                    raw.send(encode_frame(wire.Get(rid, long.id)))
        assert (await client.status()).server.pid == server.pid
        assert resident_mb(server.pid) - before < 150


async def test_many_connections_that_leave_mid_request_leave_nothing_behind(server: Server) -> None:
    async with Client(server.socket) as client:
        for _ in range(50):
            with RawClient(server) as raw:
                raw.greet()
                raw.send(encode_frame(wire.GetStatus(2)))
        task = await client.submit("hello")
        assert (await client.result(task.id)).text
    assert server.ask("status").returncode == 0


def resident_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1024


def test_more_clients_than_the_server_has_room_for_wait_and_harm_nobody(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        server.ask("submit", "the engine is loaded", "--wait")
        before = json.loads(server.ask("status", "--json").stdout)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(RawClient(server))
            first.greet()
            crowd = [stack.enter_context(RawClient(server)) for _ in range(200)]
            for each in crowd:
                each.send(encode_frame(Hello(1)))
            served = sum(each.is_answered() for each in crowd)
            assert 0 < served < 64
            first.send(encode_frame(wire.GetStatus(2)))
            assert isinstance(first.reply(), wire.StatusReply)
            spec = TaskSpec(Ids().mint(), messages=(Message("user", "hello"),), sampling=Sampling())
            first.send(encode_frame(wire.Submit(3, (spec,), follow=True)))
            assert isinstance(first.reply(), wire.Submitted)
            assert isinstance(first.reply(), wire.AnswerReply)
        assert server.ask("submit", "they have left", "--wait").returncode == 0
        after = json.loads(server.ask("status", "--json").stdout)
        assert after["server"]["pid"] == before["server"]["pid"]
        assert not any(actor["restarts"] for actor in after["actors"])


def test_a_crowd_is_let_in_as_others_leave(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (64, 64))
        with contextlib.ExitStack() as stack:
            crowd = [RawClient(server) for _ in range(100)]
            for each in crowd:
                stack.enter_context(each)
                each.send(encode_frame(Hello(1)))
            for each in crowd:  # the order in which they came
                assert isinstance(each.reply(), wire.Welcome)
                each.__exit__()
