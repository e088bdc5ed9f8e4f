"""`autoglm prune`: remove what ended long ago, slice by slice until nothing is left.

The server removes one slice a request, between other people's work. Broken off at any moment, the
same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio
import msgspec

from autoglm.client import Client
from autoglm.paths import places
from autoglm.pruneclient import Removed, Report
from autoglm.types import to_json

PLAIN_EVERY_S = 10.0


async def prune(arguments: argparse.Namespace) -> int:
    """The command. Exit code 0; raises what ends it early."""
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None) as client:
        with _shown() as report:
            removed = await client.prune(arguments.older_than, report)
    sys.stdout.write(f"{to_json(removed).decode() if arguments.json else in_words(removed)}\n")
    return 0


def in_words(removed: Removed) -> str:
    """`removed 3 tasks, 2 results, 9 events, 1 job`."""
    counts = [
        f"{count} {name if count != 1 else name.removesuffix('s')}"
        for name, count in msgspec.structs.asdict(removed).items()
    ]
    return f"removed {', '.join(counts)}"


@contextmanager
def _shown(now_s: Callable[[], float] = anyio.current_time) -> Generator[Report]:
    """A bar without an end on a terminal, a line now and then elsewhere; all of it on stderr."""
    if not sys.stderr.isatty():
        last = now_s()

        def tell(removed: Removed) -> None:
            nonlocal last
            if now_s() - last >= PLAIN_EVERY_S:
                last = now_s()
                print(f"autoglm: {in_words(removed)}", file=sys.stderr, flush=True)

        yield tell
        return
    from rich import progress as rich  # noqa: PLC0415 - slow to import
    from rich.console import Console  # noqa: PLC0415

    columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TimeElapsedColumn())
    console = Console(stderr=True)
    with rich.Progress(*columns, console=console, transient=True, get_time=now_s) as bar:
        task = bar.add_task("removing", total=None)
        yield lambda removed: bar.update(task, description=in_words(removed))
