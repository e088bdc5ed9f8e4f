"""`autoglm top`: the status as a live view, once a second, for as long as somebody looks.

A server that goes away is no reason to leave: the last picture stays, with the reason above it,
and the view goes on by itself when the server is back. Into a pipe goes one still picture.

Everything that happens (a look at the server, a key, a signal, an answer) is an event of one
stream, and after each the screen is painted: nothing waits for anything else, nothing polls.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from rich.console import Console

from autoglm.client import Client
from autoglm.live.deeds import carry_out
from autoglm.live.picture import picture, selectable, still
from autoglm.live.state import Deed, Outcome, State, after, press
from autoglm.live.terminal import Terminal
from autoglm.live.view import View
from autoglm.live.watch import Watch
from autoglm.paths import places
from autoglm.retry import Patience
from autoglm.status import Status
from autoglm.types import to_json

EVERY_S = 1.0
DEEDS_MAX = 8
"""What is pressed beyond that while the server is slow has no effect."""
PIPE_CELLS = 120
"""A line of a still picture where no terminal says how much fits."""
AT_ONCE = Patience(window_s=0, busy_s=0)
"""The view itself asks again, and says meanwhile what is wrong."""
_SIGNALS = (*(signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH),)


class Key(NamedTuple):
    name: str


class Answered(NamedTuple):
    deed: Deed
    outcome: Outcome


Event = View | Key | Answered | signal.Signals


async def top(arguments: argparse.Namespace) -> int:
    """Show the status until `q` or SIGTERM; once with `--json`, `--once` or where nobody watches.

    Raises ServerError when nobody listens at the start.
    """
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None, patience=AT_ONCE) as client:
        watch = Watch(client)
        view = await watch.first()
        console = Console(highlight=False)
        if arguments.json:
            sys.stdout.write(to_json(view.status).decode() + "\n")
        elif console.is_terminal and not console.is_dumb_terminal and not arguments.once:
            await _live(client, watch, view, console)
        else:
            print_still(view, console)
    return 0


def print_status(status: Status, now_ms: int) -> None:
    """The still picture of it."""
    print_still(View(status, {}, now_ms), Console(highlight=False))


def print_still(view: View, console: Console) -> None:
    """One picture, in colours where a terminal shows them."""
    cells = console.width if console.is_terminal else PIPE_CELLS
    shown = still(view, cells, ascii_only=console.options.ascii_only)
    for line in shown.split():
        line.rstrip()
        console.print(line, soft_wrap=True)


async def _live(client: Client, watch: Watch, view: View, console: Console) -> None:
    send, receive = anyio.create_memory_object_stream[Event](64)
    with (
        anyio.open_signal_receiver(*_SIGNALS) as signals,
        Terminal(console) as terminal,
        receive,
    ):
        async with anyio.create_task_group() as group:
            group.start_soon(_look, watch, send)
            group.start_soon(_pass_on, _keys(terminal), send)
            group.start_soon(_pass_on, signals, send)

            def begin(deed: Deed) -> None:
                group.start_soon(_do, client, deed, send)

            cockpit = Cockpit(view, terminal, begin, ascii_only=console.options.ascii_only)
            cockpit.paint()
            async for event in receive:
                if not cockpit.take(event):
                    break
                cockpit.paint()
            group.cancel_scope.cancel()


class Cockpit:
    """What is shown, and what the next event makes of it."""

    def __init__(
        self, view: View, terminal: Terminal, begin: Callable[[Deed], None], *, ascii_only: bool
    ) -> None:
        self._view = view
        self._terminal = terminal
        self._begin = begin
        self._ascii_only = ascii_only
        self._state = State()
        self._deeds: deque[Deed] = deque()
        """Under way the first, the others wait for its end."""

    def take(self, event: Event) -> bool:
        """False: it is time to leave."""
        match event:
            case View():
                self._view = event
            case Key(name):
                step = press(self._state, name, selectable(self._view, self._state))
                self._state = step.state
                if step.deed is not None and len(self._deeds) < DEEDS_MAX:
                    self._deeds.append(step.deed)
                    if len(self._deeds) == 1:
                        self._begin(step.deed)
                return not step.leave
            case Answered(deed, outcome):
                self._state = after(self._state, deed, outcome)
                self._deeds.popleft()
                if self._deeds:
                    self._begin(self._deeds[0])
            case signal.SIGTSTP:
                self._terminal.stop_for_now()
            case signal.SIGCONT:
                self._terminal.take_again()
            case signal.SIGWINCH:
                pass  # painted anew at its new size
            case _:
                return False
        return True

    def paint(self) -> None:
        cells, rows = self._terminal.size
        shown = picture(self._view, self._state, cells, rows, ascii_only=self._ascii_only)
        self._terminal.paint(shown)


async def _look(watch: Watch, send: MemoryObjectSendStream[Event]) -> None:
    while True:
        await anyio.sleep(EVERY_S)
        await send.send(await watch.look())


async def _keys(terminal: Terminal) -> AsyncIterator[Key]:
    async for name in terminal.keys():
        yield Key(name)


async def _pass_on(events: AsyncIterator[Event], send: MemoryObjectSendStream[Event]) -> None:
    async for event in events:
        await send.send(event)


async def _do(client: Client, deed: Deed, send: MemoryObjectSendStream[Event]) -> None:
    await send.send(Answered(deed, await carry_out(client, deed)))
