"""A copy of the store: whole, at one moment, and nobody's place is taken."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from actors.policy.rank import ranker
from runtime.store import backup
from runtime.store import protocol as p
from runtime.store.backup import back_up
from runtime.store.protocol import StoreDamaged, StoreError
from runtime.store.sqlite import SqliteStore
from tests.test_store import Bench, bench, spec

__all__ = ["bench"]


async def test_a_copy_of_a_store_in_use_is_a_store_that_opens(bench: Bench, tmp_path: Path) -> None:
    await bench.insert(spec("a"), spec("b"))
    copy = tmp_path / "copy.sqlite3"
    assert back_up(bench.path, copy) == 2
    await bench.insert(spec("c"))
    assert copy.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.glob("copy*")) == ["copy.sqlite3"]
    restored = SqliteStore(copy, ranker("fifo"))
    await restored.open()
    try:
        found = await restored.query(p.FetchAnswers(None, ("a", "b", "c")))
        assert sorted(found) == ["a", "b"]
    finally:
        await restored.close()


async def test_what_is_written_while_the_copy_is_made_is_not_in_it_and_not_held_up(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "PAGES_AT_ONCE", 1)
    await bench.insert(*(spec(f"t{n}", prompt="x" * 4000) for n in range(50)))
    meddler = sqlite3.connect(bench.path, isolation_level=None, timeout=0)
    steps: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        steps.append((done, total))
        meddler.execute("UPDATE task SET kind = ?", (str(done),))

    copy = tmp_path / "copy.sqlite3"
    assert back_up(bench.path, copy, report) == 50
    assert len(steps) == steps[-1][1] > 20
    meddler.close()
    cx = sqlite3.connect(copy)
    assert cx.execute("SELECT count(*), count(kind) FROM task").fetchone() == (50, 0)
    cx.close()


async def test_a_file_that_is_there_stays_as_it_is(bench: Bench, tmp_path: Path) -> None:
    copy = tmp_path / "precious"
    copy.write_text("precious")
    with pytest.raises(FileExistsError):
        back_up(bench.path, copy)
    assert copy.read_text() == "precious"


async def test_a_copy_that_could_not_be_made_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    await bench.insert(*(spec(f"t{n}", prompt="x" * 4000) for n in range(50)))
    await bench.store.close()
    with bench.path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(b"\xff" * 4096 * 3)
    with pytest.raises(StoreDamaged):
        back_up(bench.path, tmp_path / "copy.sqlite3")
    with pytest.raises(StoreError, match="no store"):
        back_up(tmp_path / "none", tmp_path / "copy.sqlite3")
    with pytest.raises(StoreError, match="No such file"):
        back_up(bench.path, tmp_path / "nowhere" / "copy.sqlite3")
    assert not list(tmp_path.glob("copy*"))
