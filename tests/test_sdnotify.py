"""The service manager hears what it is told, at a path and at an abstract name."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from runtime.sdnotify import ALIVE, READY, ServiceManager, Systemd, status


def manager(environment: dict[str, str]) -> ServiceManager | None:
    return Systemd.of(environment)


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "an abstract name"])
def test_what_is_told_arrives_as_one_datagram(abstract: bool, tmp_path: Path) -> None:
    name = f"autoglm test {os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}" if abstract else name)
        systemd = manager({"NOTIFY_SOCKET": f"@{name}" if abstract else name})
        assert systemd is not None
        systemd.notify(READY, status("all\nis well"))
        systemd.notify(ALIVE)
        assert listener.recv(1024) == b"READY=1\nSTATUS=all is well"
        assert listener.recv(1024) == b"WATCHDOG=1"


@pytest.mark.parametrize("address", [None, "", "not/absolute"])
def test_without_a_socket_there_is_no_manager(address: str | None) -> None:
    assert manager({} if address is None else {"NOTIFY_SOCKET": address}) is None


def test_a_manager_that_is_gone_or_does_not_read_holds_up_nobody(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"), None)
    systemd.notify(READY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        for _ in range(10_000):  # more than any queue holds
            systemd.notify(ALIVE)


@pytest.mark.parametrize(
    ("pid", "usec", "watchdog_s"),
    [
        (None, "30000000", 30),
        (str(os.getpid()), "500000", 0.5),
        ("1", "30000000", None),
        (None, None, None),
        (None, "0", None),
        (None, "soon", None),
    ],
)
def test_the_watchdog_is_ours_only_if_it_is_meant_for_us(
    pid: str | None, usec: str | None, watchdog_s: float | None
) -> None:
    given = {"NOTIFY_SOCKET": "@x", "WATCHDOG_PID": pid, "WATCHDOG_USEC": usec}
    systemd = manager({name: text for name, text in given.items() if text is not None})
    assert systemd is not None
    assert systemd.watchdog_s == watchdog_s


def test_children_do_not_inherit_it() -> None:
    environment = {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "HOME": "/"}
    manager(environment)
    assert environment == {"HOME": "/"}
