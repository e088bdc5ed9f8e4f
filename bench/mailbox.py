"""Messages a second from one sender to one receiver, for each way there is in Python.

    ceiling         no tasks and no waiting: make a struct, append it to a deque, drain, count
    mailbox         ours: `put_nowait` first, drained in batches, the sender waits when it is full
    asyncio.Queue   put and get, awaited
    anyio stream    send and receive, awaited
    pykka           a real actor on its thread, told one message at a time (if it is installed)

All on uvloop, with the same message and the same bound; the receiver counts. The ways take turns.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final

import anyio
import msgspec
import uvloop

from bench import report
from bench.report import Figure, ratio
from runtime.mailbox import Mailbox

CAPACITY: Final = 1024
SLOW_SHARE: Final = 8
"""The slow ways get this part of the messages, so that a run stays short."""


class Message(msgspec.Struct, frozen=True, gc=False):
    number: int
    body: bytes


BODY: Final = b"x" * 100


def ceiling(count: int) -> None:
    queue: deque[Message] = deque()
    got = sent = 0
    while got < count:
        for _ in range(min(CAPACITY, count - sent)):
            queue.append(Message(sent, BODY))
            sent += 1
        drained = list(queue)
        queue.clear()
        for _ in drained:
            got += 1


async def mailbox(count: int) -> None:
    box: Mailbox[Message] = Mailbox(CAPACITY)

    async def send() -> None:
        put_nowait = box.put_nowait
        for number in range(count):
            message = Message(number, BODY)
            if not put_nowait(message):
                await box.put(message)

    async def receive() -> None:
        got = 0
        while got < count:
            for _ in await box.drain():
                got += 1
            box.done()

    await both(send, receive)


async def asyncio_queue(count: int) -> None:
    queue: asyncio.Queue[Message] = asyncio.Queue(CAPACITY)

    async def send() -> None:
        for number in range(count):
            await queue.put(Message(number, BODY))

    async def receive() -> None:
        for _ in range(count):
            await queue.get()

    await both(send, receive)


async def anyio_stream(count: int) -> None:
    sender, receiver = anyio.create_memory_object_stream[Message](CAPACITY)

    async def send() -> None:
        for number in range(count):
            await sender.send(Message(number, BODY))

    async def receive() -> None:
        for _ in range(count):
            await receiver.receive()

    with sender, receiver:
        await both(send, receive)


def pykka(count: int) -> None:
    package: Any = importlib.import_module("pykka")

    class Counter(package.ThreadingActor):
        def __init__(self) -> None:
            super().__init__()  # pyright: ignore[reportUnknownMemberType]
            self.got = 0

        def on_receive(self, message: Message | None) -> int:
            self.got += message is not None
            return self.got

    actor: Any = Counter.start()
    for number in range(count):
        actor.tell(Message(number, BODY))
    assert actor.ask(None) == count
    actor.stop()


async def both(*sides: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as group:
        for side in sides:
            group.start_soon(side)


def per_second(way: Callable[[int], Any], count: int) -> float:
    """Messages a second of one run."""
    gc.collect()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        loop = runner.get_loop()
        began = time.perf_counter()
        made = way(count)
        if made is not None:
            loop.run_until_complete(made)
        return count / (time.perf_counter() - began)


def main() -> int:
    parser = report.options("mailbox", __doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--messages", type=int, default=2_000_000)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.messages = 3, 200_000
    state = report.conditions(arguments, ("anyio", "msgspec", "pykka"))
    few = arguments.messages // SLOW_SHARE
    ways: dict[str, tuple[Callable[[int], Any], int]] = {
        "ceiling": (ceiling, arguments.messages),
        "mailbox": (mailbox, arguments.messages),
        "asyncio.Queue": (asyncio_queue, few),
        "anyio stream": (anyio_stream, few),
    }
    if report.installed("pykka"):
        ways["pykka"] = (pykka, few)
    else:
        report.progress("pykka is not installed: no comparison with it")
    found = report.turns(
        arguments.rounds,
        {name: functools.partial(per_second, *how) for name, how in ways.items()},
    )
    speeds = {name: Figure(name, "messages/s", samples) for name, samples in found.items()}
    targets = {"ceiling": (0.3, 0.55), "pykka": (10, 25)}
    ratios = [
        ratio(speeds["mailbox"], speeds[name], *targets.get(name, (None, None)))
        for name in speeds
        if name != "mailbox"
    ]
    return report.finish(arguments.output, state, [*speeds.values(), *ratios], {})


if __name__ == "__main__":
    sys.exit(main())
