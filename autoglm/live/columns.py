"""What a live view is put together from: cells, bars, curves, and tables that fit.

Widths are in cells of the terminal. Text from outside passes through `cell`, which leaves nothing
that acts on a terminal or that terminals disagree about how wide to draw.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text

from autoglm.text import one_line, printable

GAP = "  "
HEAD = "bold cyan underline"
DIM = "bright_black"
GOOD, MIDDLING, BAD = "green", "yellow", "red"
_BARS = "▁▂▃▄▅▆▇█"
_FLEXIBLE_MIN = 20
_UNSTEADY = re.compile("[\u200b-\u200d\u2060\ufe00-\ufe0f\U000e0000-\U000e01ef]")
"""Joiners, variation selectors and tags: what follows is as wide as a terminal thinks it is."""
_MARKS_MAX = 4
"""Characters for each cell: marks that are stacked on one letter take no cells and no end."""
_TO_ASCII = str.maketrans(f"{_BARS}░…▸→│─·↑↓╭╮╰╯", "_.,-=+*#.~>>|--^v++++")


class Column(NamedTuple):
    """One column of a table."""

    name: str
    right: bool = False
    """Flush right, as numbers are."""
    rank: int = 0
    """Where there is no room, the columns with the largest go first; those with 0 stay."""
    flexible: bool = False
    """As wide as there is room for, and left out where nothing is in it; one in a table."""


def cell(text: str, cells_max: int | None = None, style: str = "") -> Text:
    """Text from outside, on one line, safe and of a steady width; cut with an ellipsis."""
    words = _UNSTEADY.sub("", one_line(text[:4096]))
    if cells_max is None:
        return Text(words, style=style)
    made = Text(words[: _MARKS_MAX * cells_max], style=style)
    made.truncate(cells_max, overflow="ellipsis")
    return made


def steady(line: str, chars_max: int = 20_000) -> Text:
    """Like `cell`, for a line whose blanks matter."""
    return Text(_UNSTEADY.sub("", printable(line[:chars_max]).replace("\n", " ").expandtabs(4)))


def width(text: Text) -> int:
    return cell_len(text.plain)


def fitted(text: Text, cells: int) -> Text:
    """Of exactly that width."""
    made = text.copy()
    made.rstrip()
    made.truncate(max(cells, 0), overflow="ellipsis", pad=True)
    return made


def number(value: float) -> str:
    """With separators, and no more digits than anybody reads."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def percent(part: float | None) -> str:
    return "" if part is None else f"{round(100 * part)}%"


def table(columns: Sequence[Column], rows: Iterable[Sequence[Text]], cells: int) -> list[Text]:
    """Aligned lines of at most `cells`, the head first."""
    table = [[Text(column.name, style=HEAD) for column in columns], *map(list, rows)]
    widths = [max(map(width, column)) for column in zip(*table, strict=True)]
    shown = [
        n for n, each in enumerate(columns) if not each.flexible or any(row[n] for row in table[1:])
    ]

    def least() -> int:
        wanted = (
            min(widths[n], _FLEXIBLE_MIN) if columns[n].flexible else widths[n] for n in shown
        )
        return sum(wanted) + len(GAP) * (len(shown) - 1)

    while least() > cells and (losable := [n for n in shown if columns[n].rank]):
        shown.remove(max(losable, key=lambda n: columns[n].rank))
    for n in shown:
        if columns[n].flexible:
            widths[n] = max(0, cells - least() + min(widths[n], _FLEXIBLE_MIN))
    lines: list[Text] = []
    for place, row in enumerate(table):
        for n in shown:
            row[n].truncate(widths[n], overflow="ellipsis")
            row[n].align("right" if columns[n].right else "left", widths[n])
        line = Text(GAP, style="" if place else HEAD).join([row[n] for n in shown])
        lines.append(line)
    return lines


def beside(blocks: Sequence[list[Text]], cells: int, gap: str = "   ") -> list[Text]:
    """Blocks of lines next to each other, each in `cells`."""
    most = max(map(len, blocks), default=0)
    filled = [[*block, *[Text()] * (most - len(block))] for block in blocks]
    rows = zip(*filled, strict=True)
    return [Text(gap).join(fitted(line, cells) for line in row) for row in rows]


def bar(part: float, cells: int, style: str) -> Text:
    """How much of the whole it is, 0 to 1."""
    full = round(min(max(part, 0.0), 1.0) * cells)
    return Text.assemble(("█" * full, style), ("░" * (cells - full), DIM))


def sparkline(samples: Iterable[float], cells: int) -> str:
    """The last `cells` samples as bars, the highest of them being full."""
    return curve(samples, cells, 1)[0]


def curve(samples: Iterable[float], cells: int, rows: int) -> list[str]:
    """The last `cells` samples as bars of up to `rows` lines, the highest of them being full."""
    shown = list(samples)[-cells:] if cells > 0 else []
    most = max(shown, default=0.0)
    steps = len(_BARS) * rows - 1
    heights = [round(max(each, 0.0) / most * steps) if most > 0 else 0 for each in shown]
    return [
        "".join(_bar_at(height - len(_BARS) * row, lowest=row == 0) for height in heights)
        for row in reversed(range(rows))
    ]


def _bar_at(height: int, *, lowest: bool) -> str:
    if height < 0:
        return " " if not lowest else _BARS[0]
    return _BARS[min(height, len(_BARS) - 1)]


def in_ascii(text: Text) -> Text:
    """For a terminal that knows nothing else."""
    text.plain = text.plain.translate(_TO_ASCII).encode("ascii", "replace").decode()
    return text
