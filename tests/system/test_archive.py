"""dist/autoglm: one file that runs anywhere, built here and used on a fresh home."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from autoglm import __version__
from tests.system import real, test_terminal
from tests.system.real import INSTANT, Server, autoglm, environment, fingerprint

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
BUILD = [sys.executable, "-P", str(ROOT / "archive" / "build.py")]
BARE_PYTHON = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
"""The one that this environment was made from: it knows none of our packages."""
TIMEOUT_S = 300
"""vLLM takes most of a minute to load where the machine is shared."""


def build(output: Path) -> str:
    done = subprocess.run(
        [*BUILD, str(output)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dist") / "autoglm"
    assert str(path) in build(path)
    return path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh one, with a Python and nothing else, in a folder whose names are those of ours."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / f"python3.{sys.version_info.minor}").symlink_to(BARE_PYTHON)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    for name in ("PYTHONPATH", "XDG_CACHE_HOME", "VIRTUAL_ENV"):
        monkeypatch.delenv(name, raising=False)
    for name in ("autoglm", "runtime", "model", "actors", "msgspec"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('theirs')")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(archive: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive stands for the command in all that tests start."""
    monkeypatch.setattr(real, "AUTOGLM", [str(archive)])
    monkeypatch.setattr(test_terminal, "AUTOGLM", [str(archive)])
    return home


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [str(word) for word in words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment(), check=False
    )


def cache(home: Path) -> Path:
    return home / ".cache" / "autoglm" / "archive"


def unpacked(home: Path) -> list[Path]:
    return [path for path in cache(home).iterdir() if path.is_dir()]


def test_the_same_sources_make_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    build(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == archive.read_bytes()


def test_it_serves_answers_and_shows_from_a_folder_with_packages_of_the_same_names(
    installed: Path,
) -> None:
    with Server(installed / "data", *INSTANT) as server:
        asked = server.ask("submit", "hello", "--wait")
        assert asked.stdout.startswith(fingerprint("hello"))
        assert json.loads(server.ask("status", "--json").stdout)["server"]["version"] == __version__
        with test_terminal.top_on(server) as top:
            top.wait_for(b"frontdoor")
            top.press(b"q")
            assert top.end() == 0
        assert server.stop() == 0


def test_its_engine_host_is_started_anew_when_it_dies(installed: Path) -> None:
    with Server(installed / "data", *INSTANT) as server:
        assert server.ask("submit", "one", "--wait").returncode == 0
        [engine] = json.loads(server.ask("status", "--json").stdout)["engines"]
        os.kill(engine["pid"], signal.SIGKILL)
        assert server.ask("submit", "two", "--wait").stdout.startswith(fingerprint("two"))


def test_run_starts_a_server_of_its_own_out_of_it(installed: Path) -> None:
    (installed / "in.jsonl").write_text('{"prompt": "hello"}\n')
    done = autoglm("run", "in.jsonl", "-o", "out.jsonl", "--data-dir", "data", *INSTANT)
    assert done.returncode == 0, done.stderr
    [line] = (installed / "out.jsonl").read_text().splitlines()
    body = json.loads(line)["response"]["body"]
    assert body["choices"][0]["message"]["content"].startswith(fingerprint("hello"))


def test_it_unpacks_once_and_for_its_user_alone(archive: Path, home: Path) -> None:
    assert run(archive, "--version").stdout.strip() == f"autoglm {__version__}"
    [site] = unpacked(home)
    assert site.stat().st_mode & 0o077 == 0
    assert (site / "msgspec" / "__init__.py").stat().st_mode & 0o077 == 0
    before = sorted((path, path.stat().st_mtime_ns) for path in site.rglob("*"))
    assert run(archive, "status").returncode == 3
    assert sorted((path, path.stat().st_mtime_ns) for path in site.rglob("*")) == before


def test_many_that_are_started_at_once_unpack_once(archive: Path, home: Path) -> None:
    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(archive), "--version"], stdout=subprocess.PIPE, text=True, env=environment()
        )

    for process in [start() for _ in range(4)]:
        assert process.communicate(timeout=TIMEOUT_S)[0].strip() == f"autoglm {__version__}"
    assert len(unpacked(home)) == 1


def test_what_a_killed_start_left_half_unpacked_is_made_anew(archive: Path, home: Path) -> None:
    run(archive, "--version")
    [site] = unpacked(home)
    part = site.with_name(f"{site.name}.part")
    site.rename(part)
    assert run(archive, "status").returncode == 3
    assert unpacked(home) == [site]


@pytest.mark.parametrize("which", ["folder", "parent"])
def test_code_that_others_could_have_written_is_not_run(
    archive: Path, home: Path, which: str
) -> None:
    run(archive, "--version")
    [site] = unpacked(home)
    (site if which == "folder" else site.parent).chmod(0o777)
    refused = run(archive, "--version")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "can be written by others" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize("shared", [False, True])
def test_a_link_in_the_place_of_the_lock_is_not_followed(
    archive: Path, home: Path, shared: bool
) -> None:
    run(archive, "--version")
    [site] = unpacked(home)
    shutil.rmtree(site)
    precious = home / "precious"
    precious.write_text("data")
    lock = site.with_name(f"{site.name}.lock")
    lock.unlink()
    lock.symlink_to(precious)
    if shared:
        site.parent.chmod(0o777)
    refused = run(archive, "--version")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert ("can be written by others" if shared else "can't unpack into") in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert precious.read_text() == "data"
    assert unpacked(home) == []


def test_a_cache_that_can_not_be_written_is_said_in_one_line(
    archive: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    refused = run(archive, "status")
    assert refused.returncode == 2
    assert "set XDG_CACHE_HOME" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_without_a_python_it_says_which_one_it_needs(
    archive: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(home))
    refused = run(archive, "status")
    assert refused.returncode == 2
    assert f"needs Python 3.{sys.version_info.minor}" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_another_python_is_told_which_one_it_needs(archive: Path, home: Path) -> None:
    other = home / "other"
    with zipfile.ZipFile(archive) as held, zipfile.ZipFile(other, "w") as changed:
        for name in ("__main__.py", "unpack.py", "built.py"):
            data = held.read(name).replace(b"cpython-3", b"cpython-9").replace(b"'3.", b"'9.")
            changed.writestr(name, data)
    refused = run(BARE_PYTHON, other, "status")
    assert refused.returncode == 2
    assert "is for CPython 9." in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_without_vllm_beside_it_it_says_what_to_do(installed: Path) -> None:
    (installed / "weights").mkdir()
    (installed / "weights" / "config.json").write_text("{}")
    refused = autoglm("serve", "--engine", "vllm", "--model", "weights", "--data-dir", "data")
    assert refused.returncode == 2
    assert "has no vLLM" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.vllm
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_the_vllm_of_the_python_that_runs_it_is_used_and_nothing_of_the_folder(
    archive: Path,
    home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path_factory.mktemp("jobs")
    monkeypatch.chdir(folder)
    (folder / "msgspec").mkdir()
    (folder / "msgspec" / "__init__.py").write_text("raise RuntimeError('somebody else')")
    (folder / "in.jsonl").write_text('{"prompt": "hello", "max_tokens": 4}\n')
    done = run(
        *(sys.executable, archive, "run", "in.jsonl", "-o", "out.jsonl", "--data-dir", "data"),
        *("--model", "tiny", "--set", "engine.dtype=float32"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "out.jsonl").read_text())["error"] is None
