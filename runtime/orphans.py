"""Child processes that outlived the server that started them: found by identity, never by name.

The kernel kills our children with us. Should that fail, their memory is in the way of those that
take their place, so each is recorded, and what still runs of an earlier server is ended at the
start. A process id alone says nothing, for the kernel gives it out again: what makes an identity is
the id, the time at which the process began, and the boot in which it did.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from pathlib import Path

import msgspec

log = logging.getLogger("autoglm.process")
SUFFIX = ".host"
GONE_S = 10.0
"""How long the kernel may take to take back the memory of what was killed."""


class ProcessIdentity(msgspec.Struct, frozen=True):
    pid: int
    began: int
    """Clock ticks after the boot."""
    boot: str


def identity_of(pid: int) -> ProcessIdentity | None:
    """None when there is no such process, or it only waits to be reaped."""
    try:
        # The name, in brackets, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    state, began = fields[0], int(fields[19])
    return None if state == "Z" else ProcessIdentity(pid, began, boot)


def record(path: Path, pid: int) -> None:
    """Write down who runs. A full disk is no reason not to run."""
    if (identity := identity_of(pid)) is not None:
        with contextlib.suppress(OSError):
            path.write_bytes(msgspec.json.encode(identity))


def end_orphans(folder: Path) -> list[int]:
    """End all that is recorded in `folder` and still runs, and wait until it is gone.

    Only for who holds the folder's lock: then whoever started them is dead. Returns their ids.
    """
    ended: list[int] = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            identity = msgspec.json.decode(path.read_bytes(), type=ProcessIdentity)
            if _end(identity):
                log.warning("ended process %d, left by an earlier server", identity.pid)
                ended.append(identity.pid)
        with contextlib.suppress(OSError):
            path.unlink()
    return ended


def _end(identity: ProcessIdentity) -> bool:
    """Kill exactly this process, if it runs; its own children ask the kernel to go with it."""
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        # The handle holds one process fast: if that is the one, it stays the one.
        if identity_of(identity.pid) != identity:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        poll.poll(GONE_S * 1000)
        return True
    finally:
        os.close(handle)
