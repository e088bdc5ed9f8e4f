"""How processes of ours are started anew, installed and out of an archive."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import ourselves


@pytest.fixture
def unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which our packages would lie, had they come out of an archive."""
    (tmp_path / ourselves.MARK).touch()
    (tmp_path / "known_nowhere_else.py").write_text("print('here')")
    monkeypatch.setattr(ourselves, "_ROOT", tmp_path)
    return tmp_path


def test_an_installed_autoglm_adds_to_the_environment_that_no_folder_is_searched() -> None:
    assert not ourselves.in_archive()
    assert ourselves.environment() == {**os.environ, "PYTHONSAFEPATH": "1"}


@pytest.mark.parametrize("before", [None, "", "/somewhere"])
def test_out_of_an_archive_a_new_process_finds_the_packages_and_what_was_there(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONPATH", before)
    path = ourselves.environment()["PYTHONPATH"].split(os.pathsep)
    assert path == [str(unpacked), *([before] if before else [])]


def test_a_process_of_a_process_is_told_no_more(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(unpacked))
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert ourselves.environment() == os.environ


def test_a_module_is_run_from_a_folder_that_has_one_of_the_same_name(
    unpacked: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "known_nowhere_else.py").write_text("print('theirs')")
    command = ourselves.command("known_nowhere_else")
    assert command[0] == sys.executable
    environment = ourselves.environment()
    said = subprocess.run(
        command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout == "here\n"
