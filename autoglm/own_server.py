"""A server for one job: started when nobody listens, gone when its starter is.

It is a process of its own, with the same data folder as any other server, so that what it has
answered is there the next time. The kernel kills it with its starter (`die_with`); the store is
safe against that, as against any crash.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from anyio.abc import Process

from autoglm.errors import ServerError, UsageError
from autoglm.paths import Places

AUTOGLM = (sys.executable, "-P", "-m", "actors.main")
"""What runs the installed command."""
PATIENT_S = 20.0
"""A start that takes longer is talked about: an old store is brought forward, for instance."""
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.02


class OwnServer:
    """The running server."""

    def __init__(self, process: Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def wait_ended(self) -> str:
        """Until it ends by itself; its last words."""
        await self._process.wait()
        return _fate(self._process, self._log)


@asynccontextmanager
async def own_server(
    where: Places,
    config: Path | None,
    settings: Sequence[str],
    command: Sequence[str] = AUTOGLM,
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[OwnServer]:
    """A server that listens at `where.socket` as long as the context lasts.

    Raises UsageError or ServerError with the server's own words when it does not start.
    """
    try:
        where.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path = where.data_dir / "server.log"
        log = log_path.open("wb")
    except OSError as error:
        raise UsageError(
            f"data folder {where.data_dir}: {error.strerror}; give another --data-dir"
        ) from None
    with log:
        process = await anyio.open_process(
            _serve(command, where, config, settings),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
    try:
        await _until_listening(process, where.socket, log_path)
        yield OwnServer(process, log_path)
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(process)


def _serve(
    command: Sequence[str], where: Places, config: Path | None, settings: Sequence[str]
) -> list[str]:
    line = [
        *(*command, "serve"),
        *("--parent", str(os.getpid()), "--drain-timeout", "0"),
        *("--socket", str(where.socket), "--data-dir", str(where.data_dir)),
    ]
    if config is not None:
        line += ["--config", str(config)]
    for setting in settings:
        line += ["--set", setting]
    return line


async def _until_listening(process: Process, socket: Path, log: Path) -> None:
    told_at = anyio.current_time()
    while process.returncode is None:
        try:
            await (await anyio.connect_unix(socket)).aclose()
        except OSError:
            await anyio.sleep(_POLL_S)
        else:
            return
        if anyio.current_time() - told_at > PATIENT_S:
            told_at = anyio.current_time()
            print(f"autoglm: the server is still starting: {_last_words(log)}", file=sys.stderr)
    reason = _fate(process, log)
    if process.returncode == UsageError.exit_code:
        raise UsageError(reason)
    raise ServerError(f"the server did not start: {reason}")


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    with anyio.move_on_after(STOP_TIMEOUT_S):
        await process.wait()
        return
    process.kill()
    await process.wait()


def _fate(process: Process, log: Path) -> str:
    """Why it ended: what it said, unless it was not given the time to say it."""
    code = process.returncode
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return _last_words(log)


def _last_words(log: Path) -> str:
    words = log.read_text(errors="replace").strip().splitlines()
    return words[-1].removeprefix("autoglm: ") if words else "it said nothing"
