"""`autoglm top` on a terminal: it shows, it survives its server, it leaves the terminal clean."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Generator
from fcntl import ioctl
from pathlib import Path

import pytest

from tests.system.real import AUTOGLM, INSTANT, Server, environment

pytestmark = pytest.mark.system

ALTERNATE_SCREEN_ON, ALTERNATE_SCREEN_OFF = b"\x1b[?1049h", b"\x1b[?1049l"
TIMEOUT_S = 20.0


class Terminal:
    """A terminal of 80 by 24 in which `autoglm top` runs; `seen` is all that was written to it."""

    def __init__(self, server: Server) -> None:
        self.keyboard, screen = pty.openpty()
        ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.screen = screen
        self.before = termios.tcgetattr(screen)
        self.seen = b""
        self.process = subprocess.Popen(
            [*AUTOGLM, "top", "--data-dir", str(server.folder)],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env=environment(TERM="xterm-256color"),
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - so that ^C arrives
        )

    def wait_for(self, words: bytes) -> None:
        """Return when `words` stand in what was written since the last call."""
        self._read_until(lambda: words in self.seen)
        self.seen = b""

    def press(self, key: bytes) -> None:
        os.write(self.keyboard, key)

    def end(self) -> int:
        """The exit code, when what it last wrote has been read."""
        self._read_until(lambda: self.process.poll() is not None)
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.keyboard)
        os.close(self.screen)

    def _read_until(self, condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < TIMEOUT_S, self.seen
            if select.select([self.keyboard], [], [], 0.05)[0]:
                self.seen += os.read(self.keyboard, 65536)
        while select.select([self.keyboard], [], [], 0)[0]:
            self.seen += os.read(self.keyboard, 65536)


@contextlib.contextmanager
def top_on(server: Server) -> Generator[Terminal]:
    terminal = Terminal(server)
    try:
        yield terminal
    finally:
        terminal.close()


def press_q(terminal: Terminal) -> None:
    terminal.press(b"q")


def press_ctrl_c(terminal: Terminal) -> None:
    terminal.press(b"\x03")


def send_sigterm(terminal: Terminal) -> None:
    terminal.process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(("leave", "code"), [(press_q, 0), (press_ctrl_c, 130), (send_sigterm, 0)])
def test_leaves_the_terminal_as_it_was(
    leave: Callable[[Terminal], None], code: int, tmp_path: Path
) -> None:
    with Server(tmp_path, *INSTANT) as server, top_on(server) as terminal:
        terminal.wait_for(b"frontdoor")
        leave(terminal)
        assert terminal.end() == code
        assert ALTERNATE_SCREEN_OFF in terminal.seen
        assert b"Traceback" not in terminal.seen
        assert termios.tcgetattr(terminal.screen) == terminal.before


def test_goes_on_by_itself_when_a_killed_server_is_back(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server, top_on(server) as terminal:
        terminal.wait_for(ALTERNATE_SCREEN_ON)
        server.kill()
        terminal.wait_for(b"away for")
        server.start()
        terminal.wait_for(f"pid {server.pid}".encode())
        terminal.press(b"q")
        assert terminal.end() == 0


def test_is_one_still_picture_in_a_pipe_and_the_status_as_json(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        still = server.ask("top")
        told = server.ask("top", "--json")
    assert still.returncode == told.returncode == 0
    assert "frontdoor" in still.stdout
    assert "\x1b" not in still.stdout
    assert json.loads(told.stdout)["server"]["pid"] == server.pid
