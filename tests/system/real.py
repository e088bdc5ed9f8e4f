"""The real command, for tests: started, asked and killed, as a person would."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from autoglm import Client
from autoglm.retry import Patience

AUTOGLM = [sys.executable, "-P", "-m", "actors.main"]
START_TIMEOUT_S = 20.0

INSTANT = (
    *("--engine", "simulated"),
    *("--set", "engine.simulated.load_s=0"),
    *("--set", "engine.simulated.step_ms=0"),
    *("--set", "engine.simulated.prefill_tok_s=0"),
)
"""A simulated engine that takes no time."""


def environment(**more: str) -> dict[str, str]:
    """Ours, without what would lead the command to a person's own server and data."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AUTOGLM_", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"))
    }
    return kept | more


def autoglm(
    *arguments: str, text: str | None = None, cwd: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*AUTOGLM, *arguments],
        input=text,
        stdin=None if text is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(),
        check=False,
    )


class Server:
    """A server on `folder`; `with` waits until it listens, and stops it in the end."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.socket = folder / "autoglm.sock"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.said = ""
        """What a server that has ended wrote to stderr after it had begun to listen."""

    @property
    def store(self) -> Path:
        return self.folder / "queue.sqlite3"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*AUTOGLM, "serve", "--data-dir", str(self.folder), *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert self._process.stderr is not None
        began = time.monotonic()
        while b"listening" not in (line := self._process.stderr.readline()):
            assert line, f"the server ended with {self._process.wait()}"
            assert time.monotonic() - began < START_TIMEOUT_S

    def kill(self) -> None:
        """kill -9: nothing of ours runs any more."""
        assert self._process is not None
        self._process.kill()
        self._finish()

    def stop(self, timeout: float = 40) -> int:
        """SIGTERM, and the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._finish(timeout)

    def wait(self, timeout: float = 40) -> int:
        """Until it ends by itself; the exit code."""
        return self._finish(timeout)

    def ask(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run one client command against this server."""
        return autoglm(*arguments, "--data-dir", str(self.folder), timeout=timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    def _finish(self, timeout: float = 40) -> int:
        assert self._process is not None
        code = self._process.wait(timeout)
        assert self._process.stderr is not None
        self.said = self._process.stderr.read().decode()
        self._process.stderr.close()
        return code


IMPATIENT = Patience(window_s=0, busy_s=0)
"""For a client that is told at once what its server said."""


def fingerprint(prompt: str) -> str:
    """How the simulated engine's answer to `prompt` begins."""
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def succeeded(server: Server) -> Counter[str]:
    """How often each task has gone to `succeeded`, by the event log."""
    events = map(json.loads, server.ask("events", "--json").stdout.splitlines())
    return Counter(event["task"] for event in events if event["to"] == "succeeded")


async def all_answered_once(server: Server, prompts: dict[str, str], *, within_s: float) -> None:
    """Each of these, by id, has its own answer, recorded once, and nothing was charged for it."""
    async with Client(server.socket) as client:
        for id, prompt in prompts.items():
            result = await client.result(id, timeout=within_s)
            assert result.text.startswith(fingerprint(prompt))
            assert result.task.failures == 0
    times = succeeded(server)
    assert {id: times[id] for id in prompts} == dict.fromkeys(prompts, 1)
    assert sound(server.store)


def sound(store: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file; a server may be using it."""
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as cx:
        return cx.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def gone(pids: Sequence[int]) -> bool:
    """Whether none of these processes runs (one that waits to be reaped does not)."""
    return all(not _runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
