"""A command on a terminal of its own, for whoever wants to know what it shows or what it costs."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from fcntl import ioctl
from pathlib import Path
from types import TracebackType
from typing import Self


class Screen:
    """`command` on a terminal of `cells` by `rows`; `seen` is all that it has written."""

    def __init__(self, command: Sequence[str], cells: int, rows: int, cwd: Path) -> None:
        self._master, self._slave = pty.openpty()
        ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cells, 0, 0))
        self.seen = b""
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
            start_new_session=True,
        )

    def read_for(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> None:
        """Take what it writes, for so long, until it ends or `enough`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.poll() is None and not enough():
            self._read(0.1)
        self._read(0)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def _read(self, wait_s: float) -> None:
        while select.select([self._master], [], [], wait_s)[0]:
            self.seen += os.read(self._master, 65536)
            wait_s = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
            self.process.kill()
        self.process.wait()
        os.close(self._master)
        os.close(self._slave)
