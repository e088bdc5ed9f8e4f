"""One task a row, with the real command: repeating is safe, memory does not follow the table."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.system.real import AUTOGLM, INSTANT, Server, environment, fingerprint

pytestmark = pytest.mark.system

ROWS = 20_000
GROWTH_MB_MAX = 12.0


def peak_mb(server: Server, *command: str) -> float:
    """The most memory that one command took."""
    process = subprocess.Popen(
        [*AUTOGLM, *command, "--data-dir", str(server.folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss / 1024


def write(path: Path, rows: int) -> str:
    text = "many words " * 40
    path.write_text("id,text\n" + "".join(f"{row},{row} {text}\n" for row in range(rows)))
    return str(path)


def test_submitting_and_running_a_large_table_takes_no_more_memory_than_a_small_one(
    tmp_path: Path,
) -> None:
    small, large = write(tmp_path / "small.csv", 100), write(tmp_path / "large.csv", ROWS)
    with Server(tmp_path / "data", *INSTANT) as server:
        for command in (["submit"], ["run", "-o", str(tmp_path / "out.csv"), "--fresh"]):
            asked = [*command, "--template", "Q {text}", "--from"]
            least = peak_mb(server, *asked, small)
            assert peak_mb(server, *asked, large) < least + GROWTH_MB_MAX
    assert (tmp_path / "out.csv").read_text().count("\n") == ROWS + 1


def test_handing_in_rows_again_adds_only_what_is_new(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text\na\nb\n")
    with Server(tmp_path / "data", *INSTANT) as server:

        def ids(code: int = 0) -> list[str]:
            done = server.ask("submit", "--template", "Say {text}", "--from", str(table))
            assert done.returncode == code
            return done.stdout.split()

        first = ids()
        table.write_text("text\na\nchanged\nc\n")
        second = ids()
        assert (second[0], len(set(first + second))) == (first[0], 4)
        table.write_text("text,more\na,1\nonly one cell\n,x,y\n")
        assert len(ids(code=1)) == 2
        answer = json.loads(server.ask("get", first[0], "--wait", "--json").stdout)
        assert answer["result"]["text"].startswith(fingerprint("Say a"))
