"""`autoglm queue`, `queues` and `tenants`: how each is served, what holds it, and what a queue does
while no engine can serve.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, get_args

from autoglm.client import Client
from autoglm.degrade import Degrade, QueueStatus
from autoglm.paint import paint_for
from autoglm.paths import places
from autoglm.service import TenantStatus
from autoglm.showqueues import queue_state, queue_table, tenant_table
from autoglm.text import one_line
from autoglm.types import to_json
from autoglm.wire import QueueDeed


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
    for line in queue_table(queues, paint_for(sys.stdout)):
        _print(line)
    return 0


async def list_tenants(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as client:
        tenants = await client.tenants()
    if arguments.json:
        for tenant in tenants:
            _print_json(tenant)
        return 0
    for line in tenant_table(tenants, paint_for(sys.stdout)):
        _print(line)
    return 0


async def _steer(deed: QueueDeed, arguments: argparse.Namespace) -> int:
    async with _client(arguments) as client:
        queue = await client.steer_queue(arguments.name, deed)
    if arguments.json:
        _print_json(queue)
    else:
        _print(f"{one_line(queue.name)} {queue_state(queue)}")
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


def _print_json(value: QueueStatus | TenantStatus) -> None:
    _print(to_json(value).decode())


# ── what may be typed ────────────────────────────────────────────────────────────────────────────


def _list_options(_: argparse.ArgumentParser) -> None:
    pass


def _name_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")


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
    Action("list", "list the queues and how they are served", list_all, _list_options),
    Action("pause", "begin nothing more of a queue", partial(_steer, "pause"), _name_options),
    Action("resume", "go on with a queue", partial(_steer, "resume"), _name_options),
    Action(
        "drain",
        "take nothing new into a queue and finish what waits",
        partial(_steer, "drain"),
        _name_options,
    ),
    Action("set", "change a queue while the server runs", set_one, _set_options),
)
