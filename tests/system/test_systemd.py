"""The real command under a service manager, played by the test: a real socket, real datagrams."""

from __future__ import annotations

import configparser
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from autoglm import Client
from autoglm.argtypes import duration
from tests.system.real import INSTANT, Server

pytestmark = pytest.mark.system

UNIT = Path(__file__).parents[2] / "examples" / "autoglm.service"
PATIENCE_S = 60


class Manager:
    """Hears what a server says, line by line."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(PATIENCE_S)
        self._socket.bind(str(path))

    def heard(self) -> list[str]:
        return self._socket.recv(4096).decode().split("\n")

    def until(self, line: str) -> list[str]:
        """All that is said until `line` is, itself included. Raises TimeoutError."""
        lines: list[str] = []
        while line not in lines:
            lines += self.heard()
        return lines

    def waiting(self) -> list[str]:
        """All that has been said and not been heard yet."""
        lines: list[str] = []
        self._socket.setblocking(False)
        try:
            while True:
                lines += self.heard()
        except BlockingIOError:
            return lines
        finally:
            self._socket.settimeout(PATIENCE_S)

    def hears_nothing_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            return not self.heard()
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE_S)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    yield manager
    manager.close()


def test_a_server_is_ready_when_it_answers_then_alive_and_says_that_it_stops(
    tmp_path: Path, manager: Manager
) -> None:
    async def ask() -> str:
        async with Client(server.socket) as client:
            return (await client.submit("at once")).id

    server = Server(tmp_path, *INSTANT)
    with server:
        assert "WATCHDOG=1" not in manager.until("READY=1")
        assert anyio.run(ask)
        assert manager.until("STATUS=accepts tasks")
        for _ in range(3):
            manager.until("WATCHDOG=1")
        os.kill(server.pid, signal.SIGTERM)
        lines = manager.until("STOPPING=1")
        assert "READY=1" not in lines
        assert server.wait() == 0


def test_a_server_that_does_not_run_says_nothing_and_goes_on_when_it_does(
    tmp_path: Path, manager: Manager
) -> None:
    with Server(tmp_path, *INSTANT) as server:
        manager.until("WATCHDOG=1")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, server.pid, os.WSTOPPED | os.WNOWAIT)
            manager.waiting()
            assert manager.hears_nothing_for(2)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        manager.until("WATCHDOG=1")


def test_the_engine_host_is_not_told_of_the_manager(tmp_path: Path, manager: Manager) -> None:
    async def engine() -> int:
        async with Client(server.socket) as client:
            while (pid := (await client.status()).engines[0].pid) is None:
                pass
            return pid

    with Server(tmp_path, *INSTANT) as server:
        variables = Path(f"/proc/{anyio.run(engine)}/environ").read_bytes().split(b"\0")
    assert b"PATH" in {each.partition(b"=")[0] for each in variables}
    assert not [each for each in variables if each.startswith((b"NOTIFY_", b"WATCHDOG_"))]


def test_a_server_that_ends_with_its_parent_leaves_the_manager_to_it(
    tmp_path: Path, manager: Manager
) -> None:
    with Server(tmp_path, *INSTANT, "--parent", str(os.getpid())):
        pass
    assert manager.waiting() == []


def test_the_example_gives_running_work_the_time_that_the_server_gives_it() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    words = service["ExecStart"].split()
    drain_s = duration(words[words.index("--drain-timeout") + 1])
    assert float(service["TimeoutStopSec"]) >= drain_s + 15
    assert service["KillMode"] == "mixed", "SIGTERM is for the server alone"
    assert (service["Type"], service["Restart"]) == ("notify", "on-failure")
    assert service["RestartPreventExitStatus"] == "2"
