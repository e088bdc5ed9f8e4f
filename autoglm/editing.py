"""`autoglm edit`: another priority or deadline for tasks that wait."""

from __future__ import annotations

import argparse
import sys

from autoglm import argtypes
from autoglm.client import Client
from autoglm.errors import UsageError
from autoglm.paths import places
from autoglm.text import one_line
from autoglm.types import PRIORITY_LEAST_URGENT, PRIORITY_MOST_URGENT, to_json

SUMMARY = "give tasks that wait another priority or deadline"
EXAMPLES = """\
A task that runs or has ended is refused (exit code 3), and so are all that are named with it. A
task keeps its age: an edit moves it to where it would stand had it been submitted so.

  autoglm edit 01JX… --priority 0                     as urgent as can be
  autoglm edit 01JX… 01JY… --priority 9               several at once, all or none
  autoglm edit 01JX… --deadline 2h                    due two hours from now
  autoglm edit 01JX… --deadline none                  no deadline any more
  autoglm edit 01JX… --priority 1 --if-version 17     only if nothing happened to it since
                                                      `get --json` showed version 17
"""


def add_edit_options(parser: argparse.ArgumentParser) -> None:
    """The options of `edit`."""
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("ids", metavar="ID", nargs="+")
    parser.add_argument(
        "--priority",
        type=argtypes.priority,
        metavar=f"{PRIORITY_MOST_URGENT}-{PRIORITY_LEAST_URGENT}",
        help="smaller is more urgent",
    )
    parser.add_argument(
        "--deadline", type=argtypes.deadline, metavar="2h|none", help="from now; none: take it away"
    )
    parser.add_argument(
        "--if-version",
        type=argtypes.count,
        metavar="N",
        help="only if the task is still at this version (see `autoglm get --json`)",
    )


async def edit(arguments: argparse.Namespace) -> int:
    if arguments.priority is None and arguments.deadline is None:
        raise UsageError("edit: say what to change: --priority or --deadline")
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None) as client:
        tasks = await client.edit_many(
            arguments.ids,
            priority=arguments.priority,
            deadline=arguments.deadline,
            if_version=arguments.if_version,
        )
    for task in tasks:
        line = f"{one_line(task.id)} {task.state.value} priority {task.priority}"
        sys.stdout.write(f"{to_json(task).decode() if arguments.json else line}\n")
    return 0
