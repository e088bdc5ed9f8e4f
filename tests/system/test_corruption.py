"""A store that is not what it was: refused in one line and left alone, or noticed and closed."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from autoglm import Client
from autoglm.errors import AutoGLMError, ServerError, ServerUnavailable
from tests.system.real import IMPATIENT, INSTANT, Server, autoglm
from tests.system.test_serve import one_line

pytestmark = pytest.mark.system

PAGE = 4096
NOTICED_S = 30


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that has answered a few hundred prompts and ended in good order."""
    folder = tmp_path_factory.mktemp("stored")
    lines = folder / "in.jsonl"
    lines.write_text("".join(f'{{"prompt": "{number} {"x" * 500}"}}\n' for number in range(300)))
    with Server(folder, *INSTANT) as server:
        done = server.ask("run", str(lines), "-o", str(folder / "out.jsonl"))
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def folder(stored: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    copy = tmp_path / "data"
    copy.mkdir(mode=0o700)
    for path in stored.glob("queue.sqlite3*"):
        shutil.copy(path, copy)
    return copy


def store_of(folder: Path) -> Path:
    return folder / "queue.sqlite3"


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def flip_pages(path: Path) -> None:
    """Every page behind the first is something else, as after a write to the wrong place."""
    size = path.stat().st_size
    overwrite(path, PAGE, b"\xa5" * (size - PAGE))


def snapshot(folder: Path) -> dict[str, bytes]:
    """What is in the store's files."""
    return {path.name: path.read_bytes() for path in folder.glob("queue.sqlite3*")}


def cut_short(folder: Path) -> None:
    path = store_of(folder)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def garbage_header(folder: Path) -> None:
    overwrite(store_of(folder), 0, b"\xa5" * 100)


def first_page_flipped(folder: Path) -> None:
    overwrite(store_of(folder), 100, b"\xa5" * (PAGE - 100))


def foreign(folder: Path) -> None:
    store_of(folder).unlink()
    cx = sqlite3.connect(store_of(folder))
    cx.execute("PRAGMA journal_mode = WAL")
    cx.execute("CREATE TABLE theirs (x)")
    cx.close()


def emptied(folder: Path) -> None:
    store_of(folder).write_bytes(b"")


def a_folder(folder: Path) -> None:
    store_of(folder).unlink()
    store_of(folder).mkdir()


def newer(folder: Path) -> None:
    overwrite(store_of(folder), 60, (99).to_bytes(4, "big"))


def gone_but_for_its_log(folder: Path) -> None:
    store_of(folder).rename(folder / "queue.sqlite3-wal")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (cut_short, "cut short"),
        (garbage_header, "not a SQLite file"),
        (first_page_flipped, "damaged"),
        (foreign, "another program"),
        (emptied, "is empty"),
        (a_folder, "is no file"),
        (newer, "upgrade autoglm"),
        (gone_but_for_its_log, "is gone"),
    ],
)
def test_a_store_that_is_not_ours_or_not_whole_is_refused_in_one_line_and_left_alone(
    folder: Path, harm: Callable[[Path], None], words: str
) -> None:
    harm(folder)
    before = snapshot(folder) if store_of(folder).is_file() else {}
    refused = autoglm("serve", *INSTANT, "--data-dir", str(folder))
    assert refused.returncode == 2
    assert words in one_line(refused.stderr)
    assert str(store_of(folder)) in refused.stderr
    if before:
        after = snapshot(folder)
        assert {name: after[name] for name in before} == before
        assert after["queue.sqlite3"] == before["queue.sqlite3"]


def test_a_log_that_was_taken_away_is_missed(folder: Path) -> None:
    with Server(folder, *INSTANT) as server:
        task = json.loads(server.ask("submit", "only in the log", "--json").stdout)
        server.kill()
    log, away = folder / "queue.sqlite3-wal", folder / "away"
    log.rename(away)
    before = store_of(folder).read_bytes()
    refused = autoglm("serve", *INSTANT, "--data-dir", str(folder))
    assert refused.returncode == 2
    assert "queue.sqlite3-wal" in one_line(refused.stderr)
    assert store_of(folder).read_bytes() == before
    away.rename(log)
    with Server(folder, *INSTANT) as server:
        assert server.ask("get", task["id"], "--wait").returncode == 0


@pytest.fixture
def read_only(folder: Path) -> Iterator[Callable[[Path], None]]:
    """Makes a path read-only for root, too."""
    mounted: list[Path] = []

    def make(path: Path) -> None:
        for options in ("bind", "remount,bind,ro"):
            mount = ["mount", "-o", options, str(path), str(path)]
            if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
                pytest.skip("this user can't mount")
            if options == "bind":
                mounted.append(path)

    yield make
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("part", ["", "queue.sqlite3"])
def test_a_store_that_can_t_be_written_is_refused_in_one_line(
    folder: Path, read_only: Callable[[Path], None], part: str
) -> None:
    read_only(folder / part)
    before = store_of(folder).read_bytes()
    refused = autoglm("serve", *INSTANT, "--data-dir", str(folder))
    assert refused.returncode == 2
    assert str(folder / part) in one_line(refused.stderr)
    assert store_of(folder).read_bytes() == before


async def closed_for_good(server: Server) -> None:
    """Nothing is accepted any more, everybody is told why, and nothing more is written."""
    async with Client(server.socket, patience=IMPATIENT) as client:
        with anyio.fail_after(NOTICED_S):
            while (await client.status()).server.trouble is None:
                pass
        before = snapshot(server.folder)
        for number in range(3):
            with pytest.raises(ServerError, match="damaged") as refused:
                await client.submit(f"after the damage {number}")
            assert not isinstance(refused.value, ServerUnavailable)
            assert refused.value.retry_after is None
            assert str(server.store) in str(refused.value)
        status = await client.status()
        assert "damaged" in (status.server.trouble or "")
    assert server.stop() == 1
    assert "damaged" in server.said
    assert "Traceback" not in server.said
    after = snapshot(server.folder)
    assert after["queue.sqlite3"] == before["queue.sqlite3"]
    assert after["queue.sqlite3-wal"] == before["queue.sqlite3-wal"]


async def test_pages_flipped_under_a_running_server_close_the_intake(folder: Path) -> None:
    with Server(folder, *INSTANT) as server:
        flip_pages(server.store)
        # Reads whole tables, so that SQLite's cache can't hide it.
        server.ask("list", "--json")
        async with Client(server.socket, patience=IMPATIENT) as client:
            for number in range(50):
                try:
                    await client.submit(f"{number}")
                except AutoGLMError:
                    break
        await closed_for_good(server)


async def test_after_an_unclean_end_every_page_is_read_while_the_server_works(
    folder: Path,
) -> None:
    with Server(folder, *INSTANT) as server:
        server.ask("submit", "the log holds something")
        server.kill()
    # The table of results: nobody looks into it until somebody asks for that very answer.
    with sqlite3.connect(f"file:{store_of(folder)}?mode=ro&immutable=1", uri=True) as cx:
        (page,) = cx.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'result'").fetchone()
    cx.close()
    overwrite(store_of(folder), (page - 1) * PAGE, b"\xa5" * PAGE)
    with Server(folder, *INSTANT) as server:
        await closed_for_good(server)


def test_the_doctor_reads_every_page_and_changes_nothing(folder: Path) -> None:
    arguments = ("doctor", "--engine", "simulated", "--data-dir", str(folder))
    sound = autoglm(*arguments)
    assert "every page is sound" in sound.stdout
    flip_pages(store_of(folder))
    before = store_of(folder).read_bytes()
    found = autoglm(*arguments)
    assert found.returncode == 1
    assert "is damaged" in found.stdout
    assert str(store_of(folder)) in found.stdout
    assert store_of(folder).read_bytes() == before


def test_the_doctor_may_look_while_a_server_works(folder: Path) -> None:
    with Server(folder, *INSTANT) as server:
        assert "every page is sound" in server.ask("doctor", "--engine", "simulated").stdout
        assert server.ask("submit", "hello", "--wait").returncode == 0


def test_a_good_end_leaves_no_mark_and_a_bad_one_does(folder: Path) -> None:
    mark = folder / "queue.sqlite3-open"
    with Server(folder, *INSTANT) as server:
        assert mark.exists()
        assert server.stop() == 0
        assert not mark.exists()
    with Server(folder, *INSTANT) as server:
        server.kill()
    assert mark.exists()
