"""`autoglm top`: the status as a live view, once a second, for as long as somebody looks.

A server that goes away is no reason to leave: the last picture stays, with the reason above it,
and the view goes on by itself when the server is back. Into a pipe goes one still picture.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import termios
import tty
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager

import anyio
from rich.console import Console
from rich.live import Live

from autoglm.client import Client
from autoglm.errors import ServerError
from autoglm.ids import Ids
from autoglm.paths import places
from autoglm.picture import HISTORY_SAMPLES, View, picture
from autoglm.retry import Patience
from autoglm.show import all_states
from autoglm.status import Status
from autoglm.text import in_words
from autoglm.types import to_json

EVERY_S = 1.0
SILENT_S = 3.0
"""A server that took the question and has not answered by then counts as away."""
AT_ONCE = Patience(window_s=0, busy_s=0)
"""The view itself asks again, and says meanwhile what is wrong."""


async def top(arguments: argparse.Namespace) -> int:
    """Show the status until `q` or SIGTERM; once with `--json` or when nobody can watch.

    Raises ServerError when nobody listens at the start.
    """
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None, patience=AT_ONCE) as client:
        watch = Watch(client)
        view = await watch.first()
        console = Console(highlight=False)
        if arguments.json:
            sys.stdout.write(to_json(view.status).decode() + "\n")
        elif console.is_terminal and not console.is_dumb_terminal:
            await _live(watch, view, console)
        else:
            console.print(picture(view, console.width))
    return 0


class Watch:
    """What has been seen of a server, as a `View` at any time."""

    def __init__(self, client: Client, ids: Ids | None = None) -> None:
        self._client = client
        self._now_ms = (ids or Ids()).now_ms
        self._history: defaultdict[str, deque[float]] = defaultdict(_samples)
        self._seen: View | None = None
        """The view when the server last answered."""

    async def first(self) -> View:
        """Raises ServerError when there is no answer."""
        return self._note(await self._client.status())

    async def look(self) -> View:
        """The view of now; of the last answer, with the reason, while there is none."""
        try:
            with anyio.fail_after(SILENT_S):
                return self._note(await self._client.status())
        except TimeoutError:
            return self._away("the server is silent")
        except ServerError as error:
            return self._away(str(error))

    def _note(self, status: Status) -> View:
        for engine in status.engines:
            self._history[engine.id].append(engine.tokens_per_s)
        history = {id: tuple(samples) for id, samples in self._history.items()}
        self._seen = View(all_states(status), history, self._now_ms())
        return self._seen

    def _away(self, why: str) -> View:
        seen = self._seen
        assert seen is not None, "the first look decides whether there is anything to watch"
        since = in_words((self._now_ms() - seen.now_ms) / 1000)
        return View(seen.status, seen.history, seen.now_ms, f"away for {since}: {why}")


def _samples() -> deque[float]:
    return deque(maxlen=HISTORY_SAMPLES)


async def _live(watch: Watch, view: View, console: Console) -> None:
    def paint() -> None:
        live.update(picture(view, *console.size), refresh=True)

    with (
        anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals,
        _single_keys() as keys,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(_until_quit, keys, group.cancel_scope)
            group.start_soon(_until_ended, signals, group.cancel_scope)
            while True:
                paint()
                await anyio.sleep(EVERY_S)
                view = await watch.look()


async def _until_quit(keys: int | None, scope: anyio.CancelScope) -> None:
    """Leave on `q`; a terminal that closes or none at all can't say it."""
    while keys is not None:
        await anyio.wait_readable(keys)
        pressed = os.read(keys, 64)
        if pressed in (b"q", b"Q"):
            scope.cancel()
        if not pressed:
            return


async def _until_ended(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    """Leave on SIGTERM as on `q`, or the terminal would stay as the view has set it."""
    async for _ in signals:
        scope.cancel()


@contextmanager
def _single_keys() -> Generator[int | None]:
    """The file number that keys come from as they are pressed; None: nobody types."""
    if not sys.stdin.isatty():
        yield None
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    try:
        tty.setcbreak(keys)
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
