"""Model folders: made once, whole or not at all, and named so that a slip is understood."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autoglm.models import MODELS
from model.engine import EngineUnavailable
from model.folders import MANIFEST, cache_folder, is_whole, made_once
from model.models import NAMED, resolve_model


def write(folder: Path) -> None:
    (folder / "weights").write_text("12345")


def test_the_cache_follows_the_xdg_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert cache_folder({"XDG_CACHE_HOME": "/c"}) == Path("/c/autoglm/models")
    assert cache_folder({}) == Path("/home/somebody/.cache/autoglm/models")
    assert cache_folder({"XDG_CACHE_HOME": "relative"}) == cache_folder({})


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def build(folder: Path) -> None:
        made.append(folder)
        write(folder)

    target = tmp_path / "cache" / "model"
    assert made_once(target, build) == made_once(target, build) == target
    assert len(made) == 1
    assert {path.name for path in target.iterdir()} == {"weights", MANIFEST}


def test_a_builder_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        write(folder)
        raise EngineUnavailable("no luck")

    with pytest.raises(EngineUnavailable, match="no luck"):
        made_once(tmp_path / "model", build)
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]


def test_what_a_killed_builder_left_is_removed_and_never_used(tmp_path: Path) -> None:
    target = tmp_path / "model"
    killed = (
        "import os, sys, pathlib; from model.folders import made_once\n"
        "def build(folder): (folder / 'weights').write_text('1'); os._exit(9)\n"
        "made_once(pathlib.Path(sys.argv[1]), build)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", killed, target], check=False).returncode == 9
    (left_over,) = tmp_path.glob(".model.part-*")
    assert not target.exists()
    made_once(target, write)
    assert is_whole(target)
    assert not left_over.exists()


@pytest.mark.parametrize("damage", ["1234", None])
def test_a_damaged_folder_is_made_anew(tmp_path: Path, damage: str | None) -> None:
    target = made_once(tmp_path / "model", write)
    if damage is None:
        (target / "weights").unlink()
    else:
        (target / "weights").write_text(damage)
    assert not is_whole(target)
    made_once(target, write)
    assert (target / "weights").read_text() == "12345"
    assert not list(tmp_path.glob(".model.part-*"))


def test_of_two_builders_one_builds_and_the_other_takes_what_it_made(tmp_path: Path) -> None:
    target = tmp_path / "model"
    waits, built = threading.Event(), list[str]()

    def first(folder: Path) -> None:
        second = threading.Thread(target=made_once, args=(target, other, waits.set))
        second.start()
        threads.append(second)
        assert waits.wait(10)
        built.append("first")
        write(folder)

    def other(folder: Path) -> None:
        built.append("second")
        write(folder)

    threads: list[threading.Thread] = []
    made_once(target, first)
    threads[0].join(10)
    assert built == ["first"]
    assert is_whole(target)


def test_a_folder_with_a_model_in_it_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == tmp_path.resolve()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(EngineUnavailable, match=r"'glm-large'.*smollm2, tiny.*no folder glm-large"):
        resolve_model("glm-large")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=f"{tmp_path} holds no config.json"):
        resolve_model(str(tmp_path))


@pytest.mark.vllm
def test_the_tiny_model_is_always_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    for name in "ab":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))
        made.append(resolve_model("tiny"))
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (made[0] / file).read_bytes() == (made[1] / file).read_bytes()


@pytest.mark.vllm
def test_the_packaged_model_is_converted_once_and_knows_its_chat_template(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "model.smollm2"]
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    first = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    again = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert first.stdout == again.stdout
    assert "writing" in first.stderr
    assert again.stderr == ""
    folder = Path(first.stdout.strip())
    assert folder.is_relative_to(tmp_path)
    assert "<|im_start|>" in (folder / "chat_template.jinja").read_text()
    assert (folder / "model.safetensors").stat().st_size > 134_000_000 * 2


def test_the_client_knows_the_names_of_all_models() -> None:
    assert tuple(NAMED) == MODELS
