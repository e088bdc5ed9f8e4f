"""Many readers of one answer: late, slow, gone and back; and what one of them costs the others."""

from __future__ import annotations

import socket
from pathlib import Path

import anyio
import pytest

from autoglm import Client, wire
from tests.system.real import Server, fingerprint

pytestmark = pytest.mark.system

SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=5")
LONG = "[[tokens:400]]"


async def test_many_readers_of_one_task_all_get_the_recorded_answer(tmp_path: Path) -> None:
    texts: list[str] = []
    with Server(tmp_path, *SLOW) as server, anyio.fail_after(60):
        async with Client(server.socket) as client, Client(server.socket) as other:
            task = await client.submit(LONG, stream=True)

            async def read(reader: Client) -> None:
                texts.append("".join([chunk async for chunk in reader.follow(task)]))

            async with anyio.create_task_group() as group:
                for reader in (client, client, other, other):
                    group.start_soon(read, reader)
            result = await client.result(task)
    assert texts == [result.text] * 4


async def test_a_late_reader_gets_at_once_what_was_written_before(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server, anyio.fail_after(60):
        async with Client(server.socket) as client:
            task = await client.submit("[[tokens:1000000]]", stream=True)
            early = client.follow(task)
            seen = ""
            while len(seen) < 200:
                seen += await anext(early)
            for tenant in ("default", None):
                async with Client(server.socket, tenant) as late:
                    first = await anext(late.follow(task))
                    assert len(first) >= 200
                    assert first.startswith(seen)
            await client.cancel(task)


async def test_a_reader_that_was_away_goes_on_from_what_is_held(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server, anyio.fail_after(60):
        async with Client(server.socket) as client:
            task = await client.submit(LONG, stream=True)
            async for _ in client.follow(task):
                break
        async with Client(server.socket) as client:
            text = "".join([chunk async for chunk in client.follow(task)])
            assert text == (await client.result(task)).text


async def test_a_stalled_reader_costs_the_others_nothing(tmp_path: Path) -> None:
    """It never reads its socket, and has asked for everything a hundred times."""
    with Server(tmp_path, *SLOW) as server, anyio.fail_after(120):
        async with Client(server.socket) as client:
            tasks = await client.submit_many(
                [client.spec(f"[[tokens:300]] {number}", stream=True) for number in range(20)]
            )
            with socket.socket(socket.AF_UNIX) as stalled:
                stalled.connect(str(server.socket))
                requests = [wire.Hello(1)]
                stalled.sendall(b"".join(map(wire.encode_frame, requests)))
                follows = [wire.Follow(2 + number, tasks[number % 20].id) for number in range(2000)]
                stalled.sendall(b"".join(map(wire.encode_frame, follows)))
                for number, task in enumerate(tasks):
                    text = "".join([chunk async for chunk in client.follow(task)])
                    assert text.startswith(fingerprint(f"[[tokens:300]] {number}"))
                    assert len(text.split()) == 300
                status = await client.status()
    assert status.tasks["succeeded"] == 20
