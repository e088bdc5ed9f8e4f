"""Where data and socket are, by arguments, variables and defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm.errors import UsageError
from autoglm.paths import SOCKET_BYTES_MAX, Places, places


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


def test_without_any_word_the_xdg_folders_are_taken() -> None:
    environ = {"XDG_DATA_HOME": "/data", "XDG_RUNTIME_DIR": "/run/me"}
    assert places(environ=environ) == Places(
        Path("/data/autoglm"), Path("/run/me/autoglm/autoglm.sock")
    )


def test_without_xdg_folders_all_is_at_home() -> None:
    home = Path("/home/me/.local/share/autoglm")
    assert places(environ={}) == Places(home, home / "autoglm.sock")


@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_an_xdg_folder_that_is_not_absolute_counts_as_unset(value: str) -> None:
    environ = {"XDG_DATA_HOME": value, "XDG_RUNTIME_DIR": value}
    assert places(environ=environ) == places(environ={})


def test_a_data_folder_that_was_asked_for_holds_its_socket() -> None:
    expected = Places(Path("/mine"), Path("/mine/autoglm.sock"))
    environ = {"XDG_RUNTIME_DIR": "/run/me"}
    assert places(data_dir="/mine", environ=environ) == expected
    assert places(environ=environ | {"AUTOGLM_DATA_DIR": "/mine"}) == expected


def test_arguments_win_over_variables() -> None:
    environ = {"AUTOGLM_DATA_DIR": "/theirs", "AUTOGLM_SOCKET": "/their.sock"}
    found = places(socket="/my.sock", data_dir="/mine", environ=environ)
    assert found == Places(Path("/mine"), Path("/my.sock"))
    assert places(environ=environ).socket == Path("/their.sock")


def test_empty_variables_count_as_unset() -> None:
    environ = {"AUTOGLM_DATA_DIR": "", "AUTOGLM_SOCKET": ""}
    assert places(environ=environ) == places(environ={})


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places(data_dir="~/x", environ={}).data_dir == Path("/home/me/x")
    assert places(socket="s", environ={}).socket == tmp_path / "s"


def test_a_socket_s_path_may_be_107_bytes_long_and_no_longer() -> None:
    longest = "/" + "é" * ((SOCKET_BYTES_MAX - 1) // 2)
    assert places(socket=longest, environ={}).socket == Path(longest)
    with pytest.raises(UsageError, match=r"108 bytes.*--socket"):
        places(socket=longest + "x", environ={})
