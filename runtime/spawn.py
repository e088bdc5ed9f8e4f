"""Starting a process without a pause of the event loop.

Whoever starts a process is held by the kernel until the new one has a processor and has become
what it is to be: tens of milliseconds where processors are scarce, and most of the time the one who
waits holds the interpreter's lock. So each process has a thread here that starts it, without the
lock, waits for its end and takes its exit code. That thread lives exactly as long as the process,
which matters: "the parent's death", of which the kernel tells, is the death of this thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import anyio

_SETSIGDEF: Final = 0x04
_SETSID: Final = 0x80
_STDERR: Final = 2
_OPAQUE_BYTES: Final = 1024
"""For glibc's `posix_spawnattr_t`, `posix_spawn_file_actions_t` and `sigset_t`, all far smaller."""
_libc: Final = ctypes.CDLL(None)
"""Functions that are called through it let go of the interpreter's lock."""


class Spawned:
    """A process that runs, or has run."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.code: int | None = None
        """Its exit code once it has ended; a signal's number, negative, if one ended it. None
        stays where we were told to ignore SIGCHLD, for then the kernel keeps no codes.
        """
        self._ended = asyncio.Event()

    async def wait(self) -> None:
        """Until it has ended and is reaped."""
        await self._ended.wait()

    def end(self, code: int | None) -> None:
        self.code = code
        self._ended.set()


async def spawn(begin: Callable[[], int], afterwards: Callable[[], object]) -> Spawned:
    """The process that `begin` starts, whose id it returns.

    `begin`, and `afterwards` when the process has ended, run in its own thread, so they may write
    files: where others sync theirs, that too can take long. Raises what `begin` raises.
    """
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[Spawned] = loop.create_future()

    def tell(call: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # nobody listens any more
            loop.call_soon_threadsafe(call)

    def live() -> None:
        try:
            pid = begin()
        except Exception as error:
            refusal = error
            tell(lambda: begun.set_exception(refusal))
            return
        process = Spawned(pid)
        tell(lambda: begun.set_result(process))
        code = None
        with contextlib.suppress(ChildProcessError):
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        afterwards()
        tell(lambda: process.end(code))

    threading.Thread(target=live, name="process", daemon=True).start()
    with anyio.CancelScope(shield=True):  # who has started it has to hear of it
        await asyncio.wait([begun])
    return begun.result()


def posix_spawn(argv: Sequence[str], environment: Mapping[str, str], fds: Mapping[int, int]) -> int:
    """Start `argv` in a session of its own, with `fds` (theirs: ours) and no others
    above stderr; the id.

    What Python's own does, but for the interpreter's lock, which that one keeps. Raises OSError.
    """
    assert not fds or min(fds.values()) > max(fds), "one of ours would be overwritten too early"
    attributes, actions, signals = (ctypes.create_string_buffer(_OPAQUE_BYTES) for _ in range(3))
    pid = ctypes.c_int()
    _check(_libc.posix_spawnattr_init(attributes))
    _check(_libc.posix_spawn_file_actions_init(actions))
    try:
        _libc.sigfillset(signals)  # what Python ignores, SIGPIPE above all, is not theirs to ignore
        _check(_libc.posix_spawnattr_setsigdefault(attributes, signals))
        _check(_libc.posix_spawnattr_setflags(attributes, ctypes.c_short(_SETSIGDEF | _SETSID)))
        for theirs, ours in fds.items():
            _check(_libc.posix_spawn_file_actions_adddup2(actions, ours, theirs))
        # A C library that does not know it leaves those open that we were given to pass on.
        if close_from := getattr(_libc, "posix_spawn_file_actions_addclosefrom_np", None):
            _check(close_from(actions, max([_STDERR, *fds]) + 1))
        words = _strings(argv)
        variables = _strings([f"{name}={value}" for name, value in environment.items()])
        path = os.fsencode(argv[0])
        _check(
            _libc.posix_spawn(ctypes.byref(pid), path, actions, attributes, words, variables),
            argv[0],
        )
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)
        _libc.posix_spawnattr_destroy(attributes)
    return pid.value


def _strings(texts: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(texts) + 1))(*map(os.fsencode, texts), None)


def _check(error: int, about: str | None = None) -> None:
    if error:
        raise OSError(error, os.strerror(error), about)
