"""What a service manager is told, by the protocol of sd_notify(3): datagrams to its socket.

Nobody is told anything, and nothing fails, where no manager listens.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from typing import Protocol

SOCKET, WATCHDOG, WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
READY = "READY=1"
STOPPING = "STOPPING=1"
ALIVE = "WATCHDOG=1"


class ServiceManager(Protocol):
    """Whoever started us and watches over us."""

    watchdog_s: float | None
    """It ends us when it has not heard `ALIVE` for so long; None: it does not mind."""

    def notify(self, *lines: str) -> None:
        """Tell it. Never fails and never waits."""
        ...


def status(text: str) -> str:
    """A line for people, which `systemctl status` shows."""
    return f"STATUS={' '.join(text.split())}"


class Systemd:
    """The manager that the environment names."""

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        """`address`: a path, or a name in the abstract namespace after an `@`."""
        self.watchdog_s = watchdog_s
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Systemd | None:
        """None where there is none. What names it is taken out: our children don't speak for us."""
        address, usec, pid = (
            environment.pop(name, "") for name in (SOCKET, WATCHDOG, WATCHDOG_PID)
        )
        if not address.startswith(("/", "@")):
            return None
        ours = pid in {"", str(os.getpid())} and usec.isdecimal() and int(usec) > 0
        return cls(address, int(usec) / 1e6 if ours else None)

    def notify(self, *lines: str) -> None:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(lines).encode(), self._address)
