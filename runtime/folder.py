"""The data folder and the socket's place: ours alone, and locked against a second server.

The lock is the kernel's (`flock`): it is gone when its holder is, however that ended, so a stale
lock file means nothing and is never removed.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from autoglm.errors import UsageError

FOLDER_MODE = 0o700


class Lock:
    """A locked file, with the holder's process id in it for people to read."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process holds it, OSError when it can't be made."""
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        os.close(self._fd)


def claim_data_dir(folder: Path) -> Lock:
    """Make the folder if need be, check that it is ours, and lock it.

    Raises UsageError that names the folder and says what to do.
    """
    _own(folder, "data folder", "--data-dir")
    path = folder / "lock"
    try:
        return Lock(path)
    except BlockingIOError:
        raise UsageError(
            f"a server already runs on {folder} (process {_holder(path)});"
            " stop it, or give another --data-dir"
        ) from None
    except OSError as error:
        raise UsageError(
            f"data folder {folder}: {error.strerror}; give another --data-dir"
        ) from None


def claim_socket(path: Path) -> Lock:
    """Make the socket's folder if need be, check it, lock the socket's name, remove a stale one.

    Raises UsageError that names the socket and says what to do.
    """
    _own(path.parent, "socket folder", "--socket")
    lock_path = path.with_name(path.name + ".lock")
    try:
        lock = Lock(lock_path)
    except BlockingIOError:
        raise UsageError(
            f"a server already listens at {path} (process {_holder(lock_path)});"
            " stop it, or give another --socket"
        ) from None
    except OSError as error:
        raise UsageError(f"socket {path}: {error.strerror}; give another --socket") from None
    try:
        if os.path.lexists(path):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise UsageError(f"{path} is there and no socket; give another --socket")
            path.unlink()
    except BaseException:
        lock.release()
        raise
    return lock


def _own(folder: Path, what: str, option: str) -> None:
    """The folder exists, is nobody else's and nobody else can enter it."""
    try:
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        status = folder.stat()
    except FileExistsError:
        raise UsageError(f"{what} {folder} is a file; give another {option}") from None
    except OSError as error:
        raise UsageError(
            f"{what} {folder} can't be made: {error.strerror}; give another {option}"
        ) from None
    if status.st_uid != os.getuid():
        raise UsageError(f"{what} {folder} belongs to another user; give another {option}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{what} {folder} is not writable; mend its mode or give another {option}")
    if status.st_mode & 0o077:
        folder.chmod(FOLDER_MODE)


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"
