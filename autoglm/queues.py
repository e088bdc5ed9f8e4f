"""`autoglm queue`: the queues there are, and what each does while no engine can serve."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple, get_args

from autoglm.client import Client
from autoglm.degrade import Degrade, QueueStatus
from autoglm.paths import places
from autoglm.show import paint_for, queue_state, table
from autoglm.text import one_line
from autoglm.types import to_json


class Action(NamedTuple):
    """`autoglm queue NAME`."""

    name: str
    summary: str
    run: Callable[[argparse.Namespace], Awaitable[int]]
    options: Callable[[argparse.ArgumentParser], None]


async def list_all(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as client:
        queues = await client.queues()
    if arguments.json:
        for queue in queues:
            _print_json(queue)
        return 0
    rows = [
        (each.name, queue_state(each), each.degrade, each.source, each.default_text or "")
        for each in queues
    ]
    header = ("QUEUE", "STATE", "DEGRADE", "FROM", "DEFAULT TEXT")
    for line in table(header, rows, paint_for(sys.stdout)):
        _print(line)
    return 0


async def set_one(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as client:
        queue = await client.set_queue(
            arguments.name, arguments.degrade, arguments.default_text, reset=arguments.reset
        )
    if arguments.json:
        _print_json(queue)
    else:
        _print(f"{one_line(queue.name)} {queue.degrade} ({queue.source})")
    return 0


def _client(arguments: argparse.Namespace) -> Client:
    return Client(places(arguments.socket, arguments.data_dir).socket, tenant=None)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_json(queue: QueueStatus) -> None:
    _print(to_json(queue).decode())


# ── what may be typed ────────────────────────────────────────────────────────────────────────────


def _list_options(_: argparse.ArgumentParser) -> None:
    pass


def _set_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument(
        "--degrade", choices=get_args(Degrade), help="what new tasks meet while no engine can serve"
    )
    parser.add_argument("--default-text", metavar="T", help="the answer that `default` gives")
    parser.add_argument("--reset", action="store_true", help="go back to the configuration")
    parser.epilog = (
        "Examples: autoglm queue set core --degrade fail_fast;"
        " autoglm queue set background --degrade default --default-text 'come back later';"
        " autoglm queue set core --reset"
    )


ACTIONS = (
    Action("list", "list the queues and what they do without an engine", list_all, _list_options),
    Action("set", "change a queue while the server runs", set_one, _set_options),
)
