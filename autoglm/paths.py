"""Where things are, by the XDG rules (https://specifications.freedesktop.org/basedir-spec).

The data folder holds the store; the socket is where a server listens. An empty variable counts
as unset, and so does an XDG variable that is not an absolute path, as the rules demand.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from autoglm.errors import UsageError

SOCKET_BYTES_MAX = 107
"""The kernel's limit for a socket's path: `sun_path` less the closing NUL."""


class Places(msgspec.Struct, frozen=True):
    """Absolute paths; nothing has been created."""

    data_dir: Path
    socket: Path


def places(
    socket: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Places:
    """Where the data and the socket are: arguments win over variables, variables over defaults.

    The default socket lies in the runtime folder, but beside the data when a data folder was
    asked for, so that two servers with folders of their own never meet. Raises UsageError when
    the socket's path is too long for the kernel.
    """
    chosen = data_dir or environ.get("AUTOGLM_DATA_DIR")
    data = _absolute(chosen) if chosen else _xdg("XDG_DATA_HOME", environ) or _home_data()
    data = data if chosen else data / "autoglm"
    named = socket or environ.get("AUTOGLM_SOCKET")
    if named:
        return Places(data, _short_enough(_absolute(named)))
    runtime = None if chosen else _xdg("XDG_RUNTIME_DIR", environ)
    folder = runtime / "autoglm" if runtime else data
    return Places(data, _short_enough(folder / "autoglm.sock"))


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()


def _xdg(variable: str, environ: Mapping[str, str]) -> Path | None:
    path = Path(environ.get(variable, ""))
    return path if path.is_absolute() else None


def _home_data() -> Path:
    return Path.home() / ".local" / "share"


def _short_enough(socket: Path) -> Path:
    size = len(os.fsencode(socket))
    if size > SOCKET_BYTES_MAX:
        raise UsageError(
            f"the socket's path is {size} bytes long, the system allows {SOCKET_BYTES_MAX}:"
            f" {socket}; give a shorter one with --socket PATH",
        )
    return socket
