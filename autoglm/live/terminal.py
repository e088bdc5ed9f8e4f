"""A terminal in the hands of a full-screen view, and given back as it was, however that ends.

Nothing is asked of the terminal but what every one of them does: the other screen, the place of the
cursor, colours. Keys come one by one, arrows as the sequences that terminals send for them.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import anyio
from rich.console import Console
from rich.control import Control
from rich.screen import Screen
from rich.text import Text

REST_S = 0.1
"""How long the rest of a sequence may take: a network may cut it, a person takes longer."""
_SEQUENCE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|O[@-~])")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|O)?\Z")
_NAMES = {
    **{
        b"\x1b[" + code: name
        for code, name in (
            *((b"A", "up"), (b"B", "down"), (b"C", "right"), (b"D", "left")),
            *((b"H", "home"), (b"F", "end"), (b"1~", "home"), (b"4~", "end")),
            *((b"5~", "page up"), (b"6~", "page down"), (b"7~", "home"), (b"8~", "end")),
        )
    },
    **{
        b"\x1bO" + code: name
        for code, name in (
            *((b"A", "up"), (b"B", "down"), (b"C", "right"), (b"D", "left")),
            *((b"H", "home"), (b"F", "end"), (b"M", "enter")),
        )
    },
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\x1b": "esc",
}


class Keys:
    """Bytes from a keyboard, as names of keys: a letter is itself, others are `up`, `enter`, …"""

    def __init__(self) -> None:
        self._begun = b""
        """A sequence that has begun, or the escape key."""

    @property
    def begun(self) -> bool:
        return bool(self._begun)

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete; what no key sends is passed over."""
        data, self._begun = self._begun + data, b""
        keys: list[str] = []
        place = 0
        while place < len(data):
            if (sequence := _SEQUENCE.match(data, place)) is not None:
                pressed = sequence.group()
            elif _BEGUN.match(data, place):
                self._begun = data[place:]
                break
            else:
                pressed = data[place : place + 1]
            place += len(pressed)
            if (name := _name(pressed)) is not None:
                keys.append(name)
        return keys

    def rest(self) -> list[str]:
        """Nothing more comes: what has begun was the escape key, if it was that alone."""
        begun, self._begun = self._begun, b""
        return ["esc"] if begun == b"\x1b" else []


def _name(pressed: bytes) -> str | None:
    if (name := _NAMES.get(pressed)) is not None:
        return name
    letter = pressed.decode("ascii", "replace")
    return letter if len(letter) == 1 and letter.isascii() and letter.isprintable() else None


class Terminal:
    """`with` takes the terminal and gives it back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._keys: int | None = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        """The file number that keys come from; None: nobody types."""
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._give_back()

    def paint(self, picture: Text) -> None:
        """Show it in the place of what is there."""
        with self._console as console:
            console.control(Control.home())
            console.print(Screen(picture), end="")

    @property
    def size(self) -> tuple[int, int]:
        """Cells in a line, and lines."""
        return self._console.size.width, self._console.size.height

    def stop_for_now(self) -> None:
        """What Ctrl-Z asks for: the shell gets its terminal; returns when we are to go on."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def take_again(self) -> None:
        """We were stopped without a word, and who had the terminal since may have changed it."""
        self._take()

    async def keys(self) -> AsyncIterator[str]:
        """Keys as they are pressed; ends with the terminal, at once where nobody types."""
        pressed = Keys()
        while self._keys is not None:
            await anyio.wait_readable(self._keys)
            try:
                data = os.read(self._keys, 256)
            except OSError:
                return
            if not data:
                return
            for key in pressed.feed(data):
                yield key
            if pressed.begun:
                with anyio.move_on_after(REST_S):
                    await anyio.wait_readable(self._keys)
                    continue
                for key in pressed.rest():
                    yield key

    def _take(self) -> None:
        if self._keys is not None:
            tty.setcbreak(self._keys, termios.TCSADRAIN)
        self._console.control(Control.alt_screen(enable=True), Control.show_cursor(show=False))

    def _give_back(self) -> None:
        # A terminal that is gone has nothing to be given back.
        with contextlib.suppress(OSError):
            self._console.control(Control.alt_screen(enable=False), Control.show_cursor(show=True))
        if self._keys is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)
