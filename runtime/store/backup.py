"""A copy of the store while it is in use, and the proof that it is one.

Read through a connection of its own in one read transaction, so the copy is the store at one
moment and a server goes on writing meanwhile; its log can't be shortened until the copy is made.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from runtime.store.opening import (
    blocked,
    check_pages,
    explain,
    inspect,
    read_only,
    sync_folder,
)
from runtime.store.protocol import StoreError

PAGES_AT_ONCE = 4096
Report = Callable[[int, int], None]
"""Hears how many pages are copied, and of how many."""


def back_up(store: Path, copy: Path, report: Report = lambda _done, _total: None) -> int:
    """Copy `store` to the new file `copy`, durable when it returns; the number of its tasks.

    `copy` appears whole or not at all. Raises StoreError, and FileExistsError for one that is
    there.
    """
    if os.path.lexists(copy):
        raise FileExistsError(copy)
    if not store.exists():
        raise StoreError(f"there is no store at {store}")
    inspect(store)
    part = copy.with_name(f"{copy.name}.part")
    try:
        part.unlink(missing_ok=True)
        part.touch(mode=0o600)
        tasks = _copy(store, part, report)
        with part.open("rb") as file:
            os.fsync(file)
        os.link(part, copy)  # unlike a rename, it puts itself in nobody's place
        sync_folder(copy.parent)
    except sqlite3.Error as error:
        raise explain(store, error) from error
    except FileExistsError:
        raise
    except OSError as error:
        raise blocked(copy, error) from error
    finally:
        part.unlink(missing_ok=True)
    return tasks


def _copy(store: Path, part: Path, report: Report) -> int:
    source = sqlite3.connect(read_only(store), uri=True, isolation_level=None)
    target = sqlite3.connect(part, isolation_level=None)
    try:
        source.execute("PRAGMA busy_timeout = 5000")
        source.execute("BEGIN")
        (tasks,) = source.execute("SELECT coalesce(sum(tasks), 0) FROM tally").fetchone()
        source.backup(
            target,
            pages=PAGES_AT_ONCE,
            progress=lambda _status, left, total: report(total - left, total),
        )
        target.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        check_pages(target, part)
    finally:
        target.close()
        source.close()
    return tasks
