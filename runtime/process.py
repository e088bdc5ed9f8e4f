"""Child processes that can't outlive us.

A child gets one end of a socket pair and a log file for what it prints. It runs in a session of
its own, so that Ctrl-C reaches only us, and is killed as a group. Should we be killed ourselves,
the kernel kills it: each process of ours calls `die_with` first thing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import anyio
from anyio.abc import Process

from runtime.channel import Channel, SocketChannel

_PR_SET_PDEATHSIG = 1
_LAST_WORDS_BYTES = 2000


class Host(Protocol):
    """A running child process and the channel to it."""

    pid: int
    channel: Channel

    async def kill(self) -> None:
        """End it and all it started, at once, and reap it."""
        ...

    def last_words(self) -> str:
        """The end of what it printed."""
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

    def __init__(self, process: Process, channel: Channel, log: Path) -> None:
        self.pid = process.pid
        self.channel = channel
        self._process = process
        self._log = log

    @classmethod
    async def start(cls, module: str, log: Path, arguments: Sequence[str] = ()) -> ChildProcess:
        """Raises OSError when the process can't be started."""
        ours, theirs = socket.socketpair()
        with theirs, log.open("wb") as output:
            os.fchmod(output.fileno(), 0o600)
            process = await anyio.open_process(
                [
                    *(sys.executable, "-P", "-m", module),
                    *("--fd", str(theirs.fileno()), "--parent", str(os.getpid())),
                    *arguments,
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=(theirs.fileno(),),
            )
        return cls(process, await SocketChannel.of(ours), log)

    async def kill(self) -> None:
        with anyio.CancelScope(shield=True):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            await self._process.wait()
            await self.channel.aclose()

    def last_words(self) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _LAST_WORDS_BYTES))
                return file.read().decode(errors="replace").strip()
        except OSError:
            return ""
