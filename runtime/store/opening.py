"""How the store's file comes to be, what is looked at before it is used, and what its errors mean.

What can be told from the file alone is told before SQLite opens it, because SQLite changes what it
opens: it takes an empty file for a new database, and deletes the log that stands beside one. So a
file that is refused here is left as it was found.

A new store is made under another name and renamed when it is whole. The `-open` mark stands beside
the store while a server uses it: one that is found at the start tells of an unclean end. It is
made after the write-ahead log and removed before it, so the mark without the log means that
somebody took the log away.
"""

from __future__ import annotations

import os
import sqlite3
from importlib.resources import files
from pathlib import Path

from runtime.store.migrations import migrate
from runtime.store.protocol import StoreBlocked, StoreDamaged, StoreError
from runtime.store.transaction import Counters

APPLICATION_ID = 0x41474C4D  # "AGLM", in the file's header
SCHEMA_VERSION = 4

_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_WAL_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_AFTERWARDS = "restore a backup or give another --data-dir"
_BLOCKED = {
    "SQLITE_FULL": "the disk is full; free some space",
    "SQLITE_IOERR": "it can't be read or written; is the disk full, or failing?",
    "SQLITE_BUSY": "another program holds it; stop that program",
    "SQLITE_LOCKED": "another program holds it; stop that program",
    "SQLITE_READONLY": "it can't be written; check its permissions and its file system",
    "SQLITE_CANTOPEN": "it can't be opened; check the folder, its permissions and free space",
    "SQLITE_PERM": "it can't be used; check its permissions",
    "SQLITE_NOMEM": "there is no memory left for it",
}
"""What may pass, by the beginning of SQLite's name for it."""
_DAMAGED = {
    "SQLITE_CORRUPT": f"it is damaged; {_AFTERWARDS}",
    "SQLITE_IOERR_CORRUPTFS": f"its file system is damaged; {_AFTERWARDS}",
    "SQLITE_NOTADB": "it is not a SQLite file; move it away or give another --data-dir",
}


def explain(path: Path, error: sqlite3.Error) -> StoreError:
    """SQLite's error in our words: which file, what is wrong, what to do."""
    name = getattr(error, "sqlite_errorname", None) or ""
    for kind, meanings in ((StoreDamaged, _DAMAGED), (StoreBlocked, _BLOCKED)):
        for prefix, meaning in meanings.items():
            if name.startswith(prefix):
                return kind(f"the store {path}: {meaning} ({name})")
    return StoreError(f"the store {path}: {error}")


def unusable(error: Exception) -> bool:
    """Whether it is the disk or the file, not the statement, that `error` tells of."""
    if isinstance(error, sqlite3.OperationalError):
        return True
    return isinstance(error, sqlite3.Error) and isinstance(explain(Path(), error), StoreDamaged)


def mark_of(path: Path) -> Path:
    return path.with_name(path.name + "-open")


def log_of(path: Path) -> Path:
    """SQLite's write-ahead log."""
    return path.with_name(path.name + "-wal")


def inspect(path: Path) -> None:
    """Look at the file without changing it. Raises StoreError for one that can't be ours or whole;
    a file that is not there is all right.
    """
    if not os.path.lexists(path):
        if log_of(path).exists():
            raise StoreDamaged(
                f"the store {path} is gone and its log {log_of(path).name} is not; bring it back,"
                " or move the log away to begin anew"
            )
        return
    if not path.is_file():
        raise StoreError(f"the store {path} is no file; move it away or give another --data-dir")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreBlocked(f"the store {path}: {_BLOCKED['SQLITE_READONLY']}")
    header = _beginning(path)
    if not header:
        raise StoreDamaged(f"the store {path} is empty; {_AFTERWARDS}, or remove it to begin anew")
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise StoreDamaged(f"the store {path}: {_DAMAGED['SQLITE_NOTADB']}")
    pages, version, application = (_number(header, at) for at in (28, 60, 68))
    if pages > 1 and application != APPLICATION_ID:
        raise StoreError(
            f"{path} is a SQLite file of another program; move it away or give another --data-dir"
        )
    _check_version(path, version)
    _check_size(path, header)
    if mark_of(path).exists() and not log_of(path).exists():
        raise StoreDamaged(
            f"the store {path}: its log {log_of(path).name} is gone, and with it what was accepted"
            f" last; bring it back, or remove {mark_of(path)} to go on without"
        )


def create(path: Path) -> None:
    """A new store appears whole or not at all. Raises StoreError."""
    new = path.with_name(path.name + "-new")
    try:
        for left in (new, log_of(new)):
            left.unlink(missing_ok=True)
        cx = sqlite3.connect(new, isolation_level=None)
        try:
            prepare(cx, new)
        finally:
            cx.close()
        new.rename(path)
        sync_folder(path.parent)
    except sqlite3.Error as error:
        raise explain(path, error) from error
    except OSError as error:
        raise blocked(path, error) from error


def mark(path: Path) -> None:
    """Note durably that the store is in use. Raises StoreBlocked."""
    try:
        sync_folder(path.parent)  # the log first
        mark_of(path).touch(mode=0o600)
        sync_folder(path.parent)
    except OSError as error:
        raise blocked(path, error) from error


def unmark(path: Path) -> None:
    """Note that the store is about to be closed in good order."""
    try:
        mark_of(path).unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError:
        pass  # then the next start has a look at the file: no harm


def sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def blocked(path: Path, error: OSError) -> StoreBlocked:
    return StoreBlocked(f"the store {path}: {error.strerror}; free some space, check permissions")


def prepare(cx: sqlite3.Connection, path: Path) -> Counters:
    """Make or check the file. Raises StoreError for one that is not ours or is from the future."""
    (application,) = cx.execute("PRAGMA application_id").fetchone()
    (version,) = cx.execute("PRAGMA user_version").fetchone()
    (objects,) = cx.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if objects and application != APPLICATION_ID:
        raise StoreError(f"{path} is a SQLite file of another program; nothing was changed")
    _check_version(path, version)
    if cx.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StoreError(f"{path}: this file system can't hold a write-ahead log")
    cx.execute("PRAGMA synchronous = FULL")
    cx.execute("PRAGMA foreign_keys = OFF")
    cx.execute("PRAGMA busy_timeout = 5000")
    cx.execute("PRAGMA temp_store = MEMORY")
    if not objects:
        schema = files("runtime.store").joinpath("schema.sql").read_text()
        cx.executescript(
            f"BEGIN; PRAGMA application_id = {APPLICATION_ID};"
            f" PRAGMA user_version = {SCHEMA_VERSION}; {schema} COMMIT;"
        )
    elif version < SCHEMA_VERSION:
        migrate(cx, path, version, SCHEMA_VERSION)
    os.chmod(path, 0o600)  # noqa: PTH101
    return Counters(cx)


def examine(path: Path) -> None:
    """Read the whole store, with or without a server on it, and change nothing.

    Raises StoreError.
    """
    inspect(path)
    try:
        cx = sqlite3.connect(read_only(path), uri=True)
        try:
            check_pages(cx, path)
        finally:
            cx.close()
    except sqlite3.Error as error:
        raise explain(path, error) from error


def check_pages(cx: sqlite3.Connection, path: Path) -> None:
    """Read every page: seconds for each gigabyte. Raises StoreDamaged."""
    (found,) = cx.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        what = " ".join(str(found).split())
        raise StoreDamaged(f"the store {path}: {_DAMAGED['SQLITE_CORRUPT']} ({what})")


def read_only(path: Path) -> str:
    """The address of a connection that never writes, not even the log into the file at its end."""
    return f"{path.absolute().as_uri()}?mode=ro"


def _check_version(path: Path, version: int) -> None:
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer autoglm (schema {version}, this one knows"
            f" {SCHEMA_VERSION}); upgrade autoglm"
        )


def _check_size(path: Path, header: bytes) -> None:
    """Each page that the header counts is in the file, or still in the log. Raises StoreDamaged.

    The formats of both: https://sqlite.org/fileformat2.html
    """
    page_bytes = int.from_bytes(header[16:18], "big")
    page_bytes = 65_536 if page_bytes == 1 else page_bytes
    if page_bytes < 512:
        raise StoreDamaged(f"the store {path}: {_DAMAGED['SQLITE_CORRUPT']} (page size)")
    there = path.stat().st_size // page_bytes
    missing = set(range(there + 1, _number(header, 28) + 1))
    if missing and missing - _logged_pages(log_of(path), page_bytes):
        raise StoreDamaged(f"the store {path} has been cut short; {_AFTERWARDS}")


def _logged_pages(log: Path, page_bytes: int) -> set[int]:
    """The pages of which the log holds a copy from its present generation."""
    if not log.exists():
        return set()
    pages: set[int] = set()
    with log.open("rb") as file:
        salts = file.read(_WAL_HEADER_BYTES)[16:24]
        while len(frame := file.read(_FRAME_HEADER_BYTES)) == _FRAME_HEADER_BYTES:
            if frame[8:16] != salts:
                break
            pages.add(_number(frame, 0))
            file.seek(page_bytes, os.SEEK_CUR)
    return pages


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEADER_BYTES)
    except OSError as error:
        raise StoreBlocked(f"the store {path}: {error.strerror}") from error


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "big")
