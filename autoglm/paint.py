"""Colours and aligned lines, for whatever a person sees."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TextIO

import msgspec

from autoglm.text import one_line

_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33, "blue": 34, "cyan": 36}


class Paint(msgspec.Struct, frozen=True):
    """Colours, or none."""

    on: bool = False

    def __call__(self, text: str, colour: str | None) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self.on and colour else text


def paint_for(stream: TextIO) -> Paint:
    """Colours for a terminal, unless the person asked for none (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return Paint(stream.isatty() and not plain)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], paint: Paint) -> Iterable[str]:
    """Aligned lines."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    for number, row in enumerate([header, *cells]):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield paint(line.rstrip(), None if number else "bold")
