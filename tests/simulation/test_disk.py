"""The faults of the simulated disk are real ones: they do damage, and SQLite's log mends it."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from tests.simulation.disk import torn

ROWS = 400


def checkpointed(folder: Path) -> tuple[bytes, bytes, bytes]:
    """A database file before a checkpoint and after it, and the log that was copied into it."""
    path = folder / "whole.sqlite3"
    cx = sqlite3.connect(path, isolation_level=None)
    cx.execute("PRAGMA journal_mode = WAL")
    cx.execute("PRAGMA wal_autocheckpoint = 0")
    cx.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, text TEXT)")
    cx.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(ROWS):
        cx.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 100))
    before, log = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    cx.execute("PRAGMA wal_checkpoint(PASSIVE)")
    after = path.read_bytes()
    cx.close()
    return before, after, log


def rows_found(path: Path, file: bytes, log: bytes) -> int:
    """How many rows a sound database holds; -1 for one that is damaged."""
    path.write_bytes(file)
    path.with_name(path.name + "-wal").write_bytes(log)
    cx = sqlite3.connect(path)
    try:
        sound = cx.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return cx.execute("SELECT count(*) FROM t").fetchone()[0] if sound else -1
    except sqlite3.DatabaseError:
        return -1
    finally:
        cx.close()


def test_a_checkpoint_cut_short_damages_the_file_and_the_log_mends_it(tmp_path: Path) -> None:
    before, after, log = checkpointed(tmp_path)
    images = [torn(before, after, random.Random(seed)) for seed in range(40)]
    path = tmp_path / "torn.sqlite3"
    assert any(rows_found(path, image, b"") == -1 for image in images)
    assert all(rows_found(path, image, log) == ROWS for image in images)


def test_a_log_cut_short_loses_its_last_commits_and_no_others(tmp_path: Path) -> None:
    before, _, log = checkpointed(tmp_path)
    path = tmp_path / "torn.sqlite3"
    found = [
        rows_found(path, before, torn(log[: len(log) // 2], log, random.Random(seed)))
        for seed in range(40)
    ]
    assert min(found) >= ROWS // 2 - 2
    assert len(set(found)) > 2


def test_what_differs_in_nothing_is_not_torn() -> None:
    data = random.Random(0).randbytes(5000)
    assert torn(data, data, random.Random(1)) == data
