"""The doctor: what is wrong is found, and comes with what to do about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.commands import main_in


def findings(
    folder: Path, capsys: pytest.CaptureFixture[str], *more: str
) -> tuple[int, dict[str, dict[str, str]]]:
    code = main_in(folder, "doctor", "--engine", "simulated", "--json", *more)
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return code, {each["check"]: each for each in found}


def test_a_machine_that_is_fit_needs_no_mending(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o700)
    code, found = findings(tmp_path, capsys)
    assert code == 0
    assert set(found) == {
        *("python", "processor", "engine", "data folder", "disk room", "disk sync"),
        *("socket", "server"),
    }
    assert found["data folder"]["mend"] is None
    assert "autoglm serve" in found["server"]["text"]


def test_a_folder_that_others_may_read_is_noted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o755)
    code, found = findings(tmp_path, capsys)
    assert (code, found["data folder"]["verdict"]) == (0, "note")
    assert found["data folder"]["mend"] == f"chmod 700 {tmp_path}"


def test_a_store_that_is_none_is_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "queue.sqlite3").write_text("no store")
    code, found = findings(tmp_path, capsys)
    assert (code, found["store"]["verdict"]) == (1, "bad")
    assert "restore a backup" in found["store"]["mend"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_written_is_bad(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.chmod(0o500)
    code, found = findings(tmp_path, capsys)
    assert (code, found["data folder"]["verdict"]) == (1, "bad")
    assert found["data folder"]["mend"].startswith(f"chmod u+wx {tmp_path}")


def test_an_engine_that_is_not_there_comes_with_how_to_get_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_in(tmp_path, "doctor", "--model", str(tmp_path / "none"), "--json") == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["mend"] is not None for each in found if each["verdict"] == "bad"] == [True]
