"""The load generator of durable_queue, in a process of its own, speaking the wire directly.

    load.py --socket PATH --tasks N --connections C --in-flight F [--follow]    closed loop
    load.py --socket PATH --tasks N --connections C --rate R                    open loop

It must not be the limit: all frames are encoded before the clock starts, many go with one send,
and replies are told apart by one byte of their headers. Every 64th is decoded to see that it says
what its kind promises. Closed loop: a connection sends one more task for each that is through
(durable, or with --follow answered). Open loop: task i is due at i / R seconds whatever the server
does, and its latency counts from then. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from autoglm import wire
from autoglm.ids import Ids
from autoglm.spec import task_spec
from bench.report import percentile
from runtime.process import die_with

RID_FIRST: Final = 1 << 16
"""From here on to 2^32 msgpack writes an integer as one mark and four bytes."""
TAG_AT: Final = wire.HEADER_BYTES + len(b"\x82\xa4type")
"""Where a frame says how long its tag is, which tells the tags apart that matter here."""
SUBMITTED, ANSWER, WELCOME = (0xA0 + len(tag) for tag in ("submitted", "answer", "welcome"))
DECODE_EVERY: Final = 64
PROMPT_CHARACTERS: Final = 100
START_MS: Final = 1_700_000_000_000
TASKS_PER_MS: Final = 20
CLIENTS: Final = 16
TICK_S: Final = 0.001


def task_ids(count: int, seed: int) -> list[str]:
    """The ids that a run with this seed submits: as clients of their own would mint them."""
    clock = [START_MS] * CLIENTS
    minters = [
        Ids(lambda each=each: clock[each], random.Random(f"{seed} {each}").getrandbits)
        for each in range(CLIENTS)
    ]

    def mint(number: int) -> str:
        each = number % CLIENTS
        clock[each] = START_MS + number // TASKS_PER_MS
        return minters[each].mint()

    return [mint(number) for number in range(count)]


def encode(ids: Sequence[str], *, follow: bool) -> list[bytes]:
    """One frame a task."""
    return [
        wire.encode_frame(
            wire.Submit(
                RID_FIRST + number,
                (task_spec(prompt(number), id=id, now_ms=START_MS, max_tokens=1),),
                follow,
            )
        )
        for number, id in enumerate(ids)
    ]


def prompt(number: int) -> str:
    return f"task {number}: ".ljust(PROMPT_CHARACTERS, "x")


class Run:
    """What all connections share: the clock and the tally."""

    def __init__(self, tasks: int, final: int, interval_s: float | None) -> None:
        self.final = final
        """The tag, by its length, of the reply that says a task is through."""
        self.tasks = tasks
        self.interval_s = interval_s
        self.through = 0
        self.refused = 0
        self.refusals: set[str] = set()
        self.began = 0.0
        self.sent_at = array("d", bytes(8 * tasks))
        self.latencies = array("d")
        self.ready = asyncio.Semaphore(0)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(self, rid: int, now: float) -> None:
        number = rid - RID_FIRST
        self.through += 1
        if self.interval_s is None:
            self.latencies.append(now - self.sent_at[number])
        else:
            self.latencies.append(now - self.began - number * self.interval_s)

    def check_over(self) -> None:
        if self.through + self.refused >= self.tasks and not self.done.done():
            self.done.set_result(None)

    def fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError(reason))


class Lane(asyncio.Protocol):
    """One connection with its share of the frames."""

    def __init__(self, run: Run, frames: Sequence[bytes], numbers: range) -> None:
        self._run = run
        self._frames = frames
        self._numbers = numbers
        self._next = 0
        self._rest = b""
        self._seen = 0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's derives from less
        self._transport.write(wire.encode_frame(wire.Hello(1, tenant="default")))

    def connection_lost(self, exc: Exception | None) -> None:
        self._run.fail(f"the server closed a connection: {exc}")

    def send(self, count: int) -> None:
        """The next `count` frames, with one write."""
        first, self._next = self._next, min(self._next + count, len(self._numbers))
        if first == self._next:
            return
        now, sent_at = time.perf_counter(), self._run.sent_at
        numbers = self._numbers[first : self._next]
        for number in numbers:
            sent_at[number] = now
        assert self._transport is not None
        self._transport.write(b"".join([self._frames[number] for number in numbers]))

    def data_received(self, data: bytes) -> None:
        now, run = time.perf_counter(), self._run
        if self._rest:
            data = self._rest + data
        start, end, through = 0, len(data), 0
        while end - start > TAG_AT:
            stop = start + wire.HEADER_BYTES + int.from_bytes(data[start : start + 4], "big")
            if stop > end:
                break
            tag = data[start + TAG_AT]
            if tag == run.final:
                rid_at = start + TAG_AT + 1 + tag - 0xA0 + len(b"\xa3rid\xce")
                run.ended(int.from_bytes(data[rid_at : rid_at + 4], "big"), now)
                through += 1
            self._seen += 1
            if self._seen % DECODE_EVERY == 0 or tag not in (SUBMITTED, ANSWER):
                through += self._look_at(wire.decode_reply(data[start + wire.HEADER_BYTES : stop]))
            start = stop
        self._rest = data[start:]
        if through and run.interval_s is None:
            self.send(through)
        run.check_over()

    def _look_at(self, reply: wire.Reply) -> int:
        """1 if this reply ends a task that was refused, else 0."""
        match reply:
            case wire.Welcome():
                self._run.ready.release()
            case wire.Submitted(tasks=(accepted, *_)) if accepted.task is not None:
                pass
            case wire.AnswerReply(answer=answer) if answer is not None and answer.result:
                pass
            case wire.Error():
                self._run.refused += 1
                self._run.refusals.add(reply.code)
                return 1
            case _:
                self._run.fail(f"not what was asked for: {reply}")
        return 0


async def drive(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the load once and say how it went."""
    frames = encode(task_ids(arguments.tasks, arguments.seed), follow=arguments.follow)
    final = ANSWER if arguments.follow else SUBMITTED
    interval_s = 1 / arguments.rate if arguments.rate else None
    run = Run(arguments.tasks, final, interval_s)
    lanes: list[Lane] = []
    loop = asyncio.get_running_loop()
    for each in range(arguments.connections):
        lane = Lane(run, frames, range(each, arguments.tasks, arguments.connections))
        await loop.create_unix_connection(lambda lane=lane: lane, str(arguments.socket))
        lanes.append(lane)
    for _ in lanes:
        await run.ready.acquire()
    gc.collect()
    gc.disable()
    cpu = time.process_time()
    run.began = time.perf_counter()
    if interval_s is None:
        for lane in lanes:
            lane.send(arguments.in_flight)
    else:
        await send_on_schedule(run, lanes, interval_s)
    await run.done
    seconds = time.perf_counter() - run.began
    return {
        "tasks": run.through,
        "refused": run.refused,
        "refusals": sorted(run.refusals),
        "seconds": seconds,
        "own_cpu_share": (time.process_time() - cpu) / seconds,
        "latency_ms": {
            f"p{percent:g}": percentile(run.latencies, percent) * 1000
            for percent in (50, 99, 99.9)
            if run.latencies
        },
    }


async def send_on_schedule(run: Run, lanes: Sequence[Lane], interval_s: float) -> None:
    """Each tick sends what has come due, the tasks in turn over the connections."""
    sent = 0
    while sent < run.tasks and not run.done.done():
        due = min(run.tasks, int((time.perf_counter() - run.began) / interval_s) + 1)
        for each, lane in enumerate(lanes):
            lane.send(len(range(each, due, len(lanes))) - len(range(each, sent, len(lanes))))
        sent = due
        await asyncio.sleep(TICK_S)


def main() -> None:
    parser = argparse.ArgumentParser(prog="load")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--in-flight", type=int, default=1, help="on each connection")
    parser.add_argument("--rate", type=float, help="tasks a second, sent whatever happens")
    parser.add_argument("--follow", action="store_true", help="a task is through when answered")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, default=120)
    arguments = parser.parse_args()
    die_with(os.getppid())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(asyncio.wait_for(drive(arguments), arguments.timeout_s))))


if __name__ == "__main__":
    main()
