"""The data folder and the socket's place: ours alone, one server at a time."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autoglm.errors import UsageError
from runtime.folder import claim_data_dir, claim_socket


def test_a_new_folder_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    lock = claim_data_dir(folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert lock.path.stat().st_mode & 0o777 == 0o600
    lock.release()


def test_a_folder_that_others_could_enter_is_closed_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    claim_data_dir(folder).release()
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_second_server_is_told_who_runs_already(tmp_path: Path) -> None:
    lock = claim_data_dir(tmp_path)
    with pytest.raises(UsageError, match=r"already runs on .*process \d+"):
        claim_data_dir(tmp_path)
    lock.release()
    claim_data_dir(tmp_path).release()


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(UsageError, match="is a file; give another --data-dir"):
        claim_data_dir(path)


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "lock").symlink_to(target)
    with pytest.raises(UsageError, match="give another --data-dir"):
        claim_data_dir(folder)
    assert target.read_text() == "precious"


def test_a_stale_socket_is_removed_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "autoglm.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    lock = claim_socket(path)
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(UsageError, match="already listens"):
            claim_socket(path)
        assert path.exists()
    lock.release()


def test_something_else_in_the_sockets_place_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "autoglm.sock"
    path.write_text("precious")
    for _ in range(2):
        with pytest.raises(UsageError, match="no socket"):
            claim_socket(path)
    assert path.read_text() == "precious"
