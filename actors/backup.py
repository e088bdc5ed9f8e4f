"""`autoglm backup`: a copy of the store, with or without a server on it."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from autoglm import cli
from autoglm.errors import UsageError
from autoglm.ids import Ids
from autoglm.paths import places
from autoglm.text import one_line
from autoglm.types import to_json

SUMMARY = "copy the store to a file, while the server runs"
EXAMPLES = """\
examples:
  autoglm backup /backups/                     a file of its own, named after the moment
  autoglm backup queue-before-upgrade.sqlite3

to restore, into a folder of its own or in place of a store that is moved away first:
  mkdir -m 700 restored && cp queue-before-upgrade.sqlite3 restored/queue.sqlite3
  autoglm serve --data-dir restored
"""


def add(subparsers: cli.Subparsers[cli.Parser]) -> None:
    parser = cli.add_command(subparsers, "backup", SUMMARY, _backup)
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("to", metavar="DIR|FILE", help="a FILE must not be there yet")


def _backup(arguments: argparse.Namespace) -> int:
    from runtime.store.backup import back_up  # noqa: PLC0415 - no other command needs SQLite
    from runtime.store.protocol import StoreError  # noqa: PLC0415
    from runtime.store.sqlite import STORE_NAME  # noqa: PLC0415

    store = places(arguments.socket, arguments.data_dir).data_dir / STORE_NAME
    copy = Path(arguments.to)
    if arguments.to.endswith(os.sep) and not copy.is_dir():
        raise UsageError(f"there is no folder {one_line(arguments.to)}; make it, or name a file")
    if copy.is_dir():
        now = datetime.fromtimestamp(Ids().now_ms() / 1000, UTC)
        copy = copy / f"autoglm-{now:%Y%m%dT%H%M%SZ}.sqlite3"
    last = -1

    def report(done: int, total: int) -> None:
        nonlocal last
        percent = 100 * done // max(total, 1)
        if sys.stderr.isatty() and percent != last:
            last = percent
            print(f"\rautoglm: {percent} % copied", end="", file=sys.stderr, flush=True)

    try:
        tasks = back_up(store, copy, report)
    except FileExistsError:
        raise UsageError(f"{one_line(str(copy))} is there already; give another name") from None
    except StoreError as error:
        raise UsageError(str(error)) from None
    finally:
        if last >= 0:
            print(file=sys.stderr)
    size = copy.stat().st_size
    found = {"file": str(copy), "tasks": tasks, "bytes": size}
    shown = to_json(found).decode() if arguments.json else str(copy)
    sys.stdout.write(f"{shown}\n")
    print(f"autoglm: {tasks} tasks, {size} bytes, every page is sound", file=sys.stderr)
    return 0
