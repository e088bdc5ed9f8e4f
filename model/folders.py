"""Folders that are made once, kept in the user's cache, and never seen half done.

A builder works in a temporary folder beside the target; only a folder whose every file is written
through to the disk gets the target's name, by one rename. One process builds at a time (a lock on
a file beside the target, which the kernel releases however its holder ends), the others wait and
take what it made. A manifest lists the files and their sizes, so that a damaged folder is noticed
and made anew.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

MANIFEST: Final = "autoglm.json"


class Manifest(msgspec.Struct, frozen=True):
    """Sizes in bytes of everything a folder holds, but the manifest itself."""

    files: dict[str, int]


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where models are kept: `$XDG_CACHE_HOME/autoglm/models`, by default under `~/.cache`.

    As the XDG Base Directory Specification has it, a relative XDG_CACHE_HOME is ignored.
    """
    base = Path(environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "autoglm" / "models"


def made_once(
    target: Path,
    build: Callable[[Path], None],
    waiting: Callable[[], None] = lambda: None,
) -> Path:
    """`target`, after `build` filled it if it was not there whole.

    `waiting` is called when another process is building it already. What `build` raises is passed
    on, and leaves nothing behind.
    """
    if is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_builder(target, waiting):
        if not is_whole(target):
            for left_over in target.parent.glob(f"{_part(target)}*"):
                shutil.rmtree(left_over)
            _build(target, build)
    return target


def is_whole(folder: Path) -> bool:
    """Every file of the manifest is there in its full size."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        return all((folder / name).stat().st_size == size for name, size in manifest.files.items())
    except (OSError, msgspec.MsgspecError):
        return False


def _build(target: Path, build: Callable[[Path], None]) -> None:
    part = Path(tempfile.mkdtemp(prefix=_part(target), dir=target.parent))
    try:
        build(part)
        files = sorted(path for path in part.rglob("*") if path.is_file())
        sizes = {str(path.relative_to(part)): path.stat().st_size for path in files}
        (part / MANIFEST).write_bytes(msgspec.json.encode(Manifest(sizes)))
        for path in (*files, part / MANIFEST, part):
            _write_through(path)
        if target.exists():  # damaged, or it would have been taken as it is
            target.rename(Path(tempfile.mkdtemp(prefix=_part(target), dir=target.parent)) / "old")
        part.rename(target)
        _write_through(target.parent)
    finally:
        for rest in target.parent.glob(f"{_part(target)}*"):
            shutil.rmtree(rest)


def _part(target: Path) -> str:
    return f".{target.name}.part-"


@contextmanager
def _only_builder(target: Path, waiting: Callable[[], None]) -> Generator[None]:
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_through(path: Path) -> None:
    """fsync a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
