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

    def __init__(self, server: Server, *options: str) -> None:
        self.keyboard, screen = pty.openpty()
        ioctl(screen, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.screen = screen
        self.before = termios.tcgetattr(screen)
        self.seen = b""
        self.process = subprocess.Popen(
            [*AUTOGLM, "top", "--data-dir", str(server.folder), *options],
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

    def wait_until(self, condition: Callable[[], bool]) -> None:
        self._read_until(condition)

    def _read_until(self, condition: Callable[[], bool]) -> None:
        began = time.monotonic()
        while not condition():
            assert time.monotonic() - began < TIMEOUT_S, self.seen
            if select.select([self.keyboard], [], [], 0.05)[0]:
                self.seen += os.read(self.keyboard, 65536)
        while select.select([self.keyboard], [], [], 0)[0]:
            self.seen += os.read(self.keyboard, 65536)


@contextlib.contextmanager
def top_on(server: Server, *options: str) -> Generator[Terminal]:
    terminal = Terminal(server, *options)
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


def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server, top_on(server) as terminal:
        terminal.wait_for(b"frontdoor")
        terminal.process.send_signal(signal.SIGTSTP)
        terminal.wait_for(ALTERNATE_SCREEN_OFF)
        terminal.wait_until(lambda: state_of(terminal.process.pid) == "T")
        assert termios.tcgetattr(terminal.screen) == terminal.before
        terminal.process.send_signal(signal.SIGCONT)
        terminal.wait_for(ALTERNATE_SCREEN_ON)
        terminal.wait_for(b"frontdoor")
        terminal.press(b"q")
        assert terminal.end() == 0
        assert termios.tcgetattr(terminal.screen) == terminal.before


def test_a_queue_is_paused_a_task_cancelled_and_a_dead_letter_retried_by_key(
    tmp_path: Path,
) -> None:
    slow = ("--set", "engine.faults=true", "--set", "retry.max_attempts=1")
    with Server(tmp_path, *INSTANT, *slow) as server:
        runs = server.ask("submit", "[[slow:600]]").stdout.strip()
        dead = server.ask("submit", "[[invalid]]", "--json").stdout
        dead = json.loads(dead)["id"]
        assert server.ask("get", dead, "--wait").returncode == 1
        with top_on(server) as terminal:
            terminal.wait_for(runs.encode())
            terminal.press(b"\x1b[B")
            terminal.press(b"p")
            terminal.wait_for(b"core: paused by")
            terminal.press(b"p")
            terminal.wait_for(b"core: open")
            terminal.press(b"\x1bOB" * 3)  # below the three queues is what runs longest
            terminal.press(b"c")
            terminal.wait_for(f"cancel task {runs}?".encode())
            terminal.press(b"y")
            terminal.wait_for(f"{runs}: cancelled".encode())
            terminal.press(b"d")
            terminal.wait_for(b"1 dead letters")
            terminal.press(b"\r")
            terminal.wait_for(b"invalid_request")
            terminal.press(b"r")
            terminal.wait_for(f"{dead}: ".encode())
            terminal.press(b"\x1b")
            terminal.wait_for(b"enter")
            terminal.press(b"q")
            terminal.press(b"q")
            assert terminal.end() == 0
        events = server.ask("events", "--task", dead, "--json").stdout.splitlines()
        moves = [(e.get("from"), e["to"]) for e in map(json.loads, events)]
        assert ("dead", "pending") in moves
        assert json.loads(server.ask("get", runs, "--json").stdout)["state"] == "cancelled"


def test_once_is_one_picture_on_a_terminal_too(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server, top_on(server, "--once") as terminal:
        assert terminal.end() == 0
        assert b"frontdoor" in terminal.seen
        assert ALTERNATE_SCREEN_ON not in terminal.seen


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
