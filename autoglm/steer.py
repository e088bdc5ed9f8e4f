"""`autoglm pause`, `resume`, `drain` and `archive`: tasks out of the line and back into it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from autoglm import wire
from autoglm.client import Client
from autoglm.errors import NotFound, UsageError
from autoglm.ids import Ids, is_id
from autoglm.paint import paint_for
from autoglm.paths import places
from autoglm.show import task_header, task_line
from autoglm.showqueues import queue_state
from autoglm.text import one_line
from autoglm.types import TaskState, to_json
from autoglm.wire import QueueDeed

PAUSE_EXAMPLES = (
    "A name that is no id is that of a queue. Examples: autoglm pause background;"
    " autoglm pause 01J9Z3C6V1A9CEJK1PY6TNBAZR; autoglm pause --job JOB"
)
RESUME_EXAMPLES = PAUSE_EXAMPLES.replace("pause", "resume")
DRAIN_EXAMPLES = PAUSE_EXAMPLES.replace("pause", "drain")


class Action(NamedTuple):
    """`autoglm archive NAME`."""

    name: str
    summary: str
    run: Callable[[argparse.Namespace], Awaitable[int]]
    options: Callable[[argparse.ArgumentParser], None]


async def _steer(deed: QueueDeed, arguments: argparse.Namespace) -> int:
    ids: list[str] = arguments.ids
    named: str | None = arguments.queue
    if len(ids) == 1 and not named and not is_id(ids[0]):
        ids, named = [], ids[0]
    if sum(map(bool, (ids, arguments.job, named))) != 1:
        raise UsageError(f"{deed}: give either ids or --job or a queue")
    async with _client(arguments) as client:
        if named:
            queue = await client.steer_queue(named, deed)
            _tell(arguments, queue, f"{one_line(queue.name)} {queue_state(queue)}")
            return 0
        if arguments.job:
            count = await _OF_JOB[deed](client, arguments.job)
            done = "paused" if deed == "pause" else "resumed"
            _tell(arguments, {"job": arguments.job, done: count}, f"{count} {done}")
            return 0
        done = await (client.pause if deed == "pause" else client.resume)(ids)
    return _finish(arguments, done)


_OF_JOB: dict[QueueDeed, Callable[[Client, str], Awaitable[int]]] = {
    "pause": Client.pause_job,
    "resume": Client.resume_job,
    "drain": Client.drain_job,
}
pause = partial(_steer, "pause")
drain = partial(_steer, "drain")
resume = partial(_steer, "resume")


async def list_archived(arguments: argparse.Namespace) -> int:
    paint = paint_for(sys.stdout)
    now_ms = Ids().now_ms() if sys.stdout.isatty() else None
    async with _client(arguments) as client:
        if sys.stdout.isatty() and not arguments.json:
            _print(task_header(paint, narrow=True))
        async for task in client.tasks(TaskState.ARCHIVED, arguments.tenant):
            _tell(arguments, task, task_line(task, paint, now_ms))
    return 0


async def requeue(arguments: argparse.Namespace) -> int:
    if bool(arguments.ids) == arguments.all:
        raise UsageError("archive requeue: give either ids or --all")
    async with _client(arguments, arguments.tenant) as client:
        if arguments.all:
            count = await client.requeue_all()
            _tell(arguments, {"requeued": count}, f"{count} requeued")
            return 0
        done = await client.requeue(arguments.ids)
    return _finish(arguments, done)


def _finish(arguments: argparse.Namespace, done: wire.Cancelled) -> int:
    for task in done.tasks:
        _tell(arguments, task, f"{one_line(task.id)} {task.state.value}")
    if done.unknown:
        raise NotFound(f"no task {', '.join(done.unknown)}")
    return 0


def _client(arguments: argparse.Namespace, tenant: str | None = None) -> Client:
    return Client(places(arguments.socket, arguments.data_dir).socket, tenant=tenant)


def _tell(arguments: argparse.Namespace, value: Any, line: str) -> None:
    _print(to_json(value).decode() if arguments.json else line)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


# ── what may be typed ────────────────────────────────────────────────────────────────────────────


def add_options(parser: argparse.ArgumentParser, examples: str) -> None:
    """Of `pause`, `resume` and `drain`."""
    parser.add_argument("ids", metavar="ID|QUEUE", nargs="*")
    parser.add_argument("--job", help="all tasks of this job that wait")
    parser.add_argument("--queue", metavar="NAME", help="the whole queue, until it is resumed")
    parser.epilog = examples


def _list_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant")


def _requeue_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="everything that is archived")
    parser.add_argument("--tenant", help="of this tenant alone")
    parser.epilog = (
        "Examples: autoglm archive requeue 01J9Z3C6V1A9; autoglm archive requeue --all --tenant t"
    )


ACTIONS = (
    Action("list", "list archived tasks, newest first", list_archived, _list_options),
    Action("requeue", "let archived tasks wait again", requeue, _requeue_options),
)
