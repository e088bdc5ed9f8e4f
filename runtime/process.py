"""Child processes that can't outlive us.

A child gets one end of a socket pair and a log file for what it prints. It runs in a session of
its own, so that Ctrl-C reaches only us, and is killed as a group. Should we be killed ourselves,
the kernel kills it: each process of ours calls `die_with` first thing. One that the kernel did not
reach is ended by the next server (runtime.orphans).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

import anyio

from runtime import orphans, ourselves
from runtime.channel import Channel, SocketChannel
from runtime.spawn import Spawned, posix_spawn, spawn

_PR_SET_PDEATHSIG = 1
_LAST_WORDS_BYTES = 2000
_CHANNEL_FD = 3
"""Its end of the channel, after stdin, stdout and stderr."""
_END_S = 1.0
"""How long a process may take to end after it let go of its channel."""
LOG_BYTES_MAX = 1024 * 1024
"""A log that has grown larger makes room at the next start: the one before it is kept as `.1`."""
STARTS = b"---- a process starts ----\n"


class Host(Protocol):
    """A running child process and the channel to it."""

    pid: int
    channel: Channel

    async def kill(self) -> None:
        """End it and all it started, at once, and reap it."""
        ...

    async def wait_fate(self) -> str:
        """How it ended, and the last line that it printed. Waits a moment for it to end."""
        ...


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    `parent` is the process id that the starter knows as its own: if it is gone already, the
    signal would never come.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


class ChildProcess:
    """A Python module run as a child: `python -P -m module --fd N --parent PID`."""

    def __init__(self, process: Spawned, channel: Channel, log: Path, log_begins: int) -> None:
        self.pid = process.pid
        self.channel = channel
        self._process = process
        self._log = log
        self._log_begins = log_begins
        """Where in the log its own output begins, in bytes."""

    @classmethod
    async def start(cls, module: str, log: Path, arguments: Sequence[str] = ()) -> ChildProcess:
        """Raises OSError when the process can't be started."""
        ours, theirs = socket.socketpair()
        known = log.with_suffix(orphans.SUFFIX)
        log_begins = 0

        def begin() -> int:
            nonlocal log_begins
            with _open_log(log) as output, Path(os.devnull).open("rb") as nothing:
                log_begins = output.tell()
                given = {0: nothing.fileno(), 1: output.fileno(), 2: output.fileno()}
                argv = [
                    *ourselves.command(module),
                    *("--fd", str(_CHANNEL_FD), "--parent", str(os.getpid())),
                    *arguments,
                ]
                fds = given | {_CHANNEL_FD: theirs.fileno()}
                pid = posix_spawn(argv, ourselves.environment(), fds)
            orphans.record(known, pid)
            return pid

        def forget() -> None:
            with contextlib.suppress(OSError):
                known.unlink()

        try:
            with theirs:
                process = await spawn(begin, forget)
        except BaseException:
            ours.close()
            raise
        return cls(process, await SocketChannel.of(ours), log, log_begins)

    async def kill(self) -> None:
        with anyio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await self._process.wait()
            await self.channel.aclose()

    async def wait_fate(self) -> str:
        with anyio.move_on_after(_END_S):
            await self._process.wait()
        lines = (await anyio.to_thread.run_sync(self._last_words)).splitlines()
        return ": ".join([_fate(self._process.code), *lines[-1:]])

    def _last_words(self) -> str:
        """The end of what this process, and not one before it, has printed."""
        try:
            with self._log.open("rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_begins, end - _LAST_WORDS_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""


def _open_log(path: Path) -> BinaryIO:
    """For a new process, after what those before it printed; that is kept up to a bound."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(f"{path.name}.1"))
    log = path.open("ab")
    os.fchmod(log.fileno(), 0o600)
    log.write(STARTS)
    log.flush()
    return log


def _fate(code: int | None) -> str:
    """In words; the kernel kills with SIGKILL when memory runs out."""
    if code is None:
        return "it let go of its channel"
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name
    return f"{name}, perhaps out of memory" if -code == signal.SIGKILL else name
