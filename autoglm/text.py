"""Text for people: what came from outside made safe to show, and times in words.

Prompts, answers, ids and error messages come from outside. Shown as they are, an escape sequence
in one of them could move the cursor, set the window's title or answer back to the shell, and a
bidirectional control could make a line read as another. Everything a person sees passes through
`printable` or `one_line`. Data does not: JSON escapes by itself, and an answer piped into a file
or another program arrives as the model wrote it.
"""

from __future__ import annotations

import math
import re
from datetime import datetime

from autoglm.errors import UsageError

_KEPT = {"\n", "\t"}
_BIDI = "\u061c\u200e\u200f" + "".join(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_UNSAFE = [*map(chr, (*range(0x20), *range(0x7F, 0xA0))), "\u2028", "\u2029", *_BIDI]
_STRIP = str.maketrans(
    {letter: None for letter in _UNSAFE if letter not in _KEPT}
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd"),
)
_SEQUENCES = re.compile(
    r"(?:\x1b\]|\x9d)[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # OSC: titles, links, clipboard
    r"|(?:\x1b[PX^_]|[\x90\x98\x9e\x9f])[^\x1b\x9c\n]*(?:\x1b\\|\x9c)"  # strings for the terminal
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[ -/]*[0-~]",  # all other escapes
)
"""Whole sequences go with what they carry; of a broken one only the control characters go, or
an unfinished sequence could hide the rest of an answer."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.ASCII | re.IGNORECASE)
_DURATION_MAX_S = 100 * 365 * 86_400


def printable(text: str) -> str:
    """`text` without anything that could act on a terminal; line feeds and tabs stay."""
    if text.isprintable():
        return text
    return _SEQUENCES.sub("", text).translate(_STRIP)


def one_line(text: str, width: int | None = None) -> str:
    """`text` printable and on a single line; cut to `width` characters with an ellipsis."""
    line = " ".join(printable(text).split())
    return line if width is None or len(line) <= width else line[: max(width - 1, 0)] + "…"


def duration_s(value: float | str) -> float:
    """Seconds from a number or from words such as `90`, `30s`, `10m`, `2h`, `1d`, `1.5h`.

    Raises UsageError for anything else, for what is negative and for over a hundred years.
    """
    if isinstance(value, str):
        found = _DURATION.fullmatch(value.strip())
        if not found:
            raise UsageError(f"no duration: {one_line(value, 40)!r}; write 30s, 10m, 2h or 1d")
        seconds = float(found[1]) * _UNITS_S[found[2].lower() or "s"]
    else:
        seconds = float(value)
    if not (math.isfinite(seconds) and 0 <= seconds <= _DURATION_MAX_S):
        raise UsageError(f"a duration of {value} is out of range")
    return seconds


def in_words(seconds: float) -> str:
    """A duration as a person reads it: `0.4s`, `12s`, `3m05s`, `2h10m`, `4d03h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02}h"


def ago(ms: int) -> str:
    """How long ago something was, roughly: `just now`, `12 s ago`, `2 min ago`, `3 h ago`."""
    seconds = ms // 1000
    for unit_s, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= unit_s:
            return f"{seconds // unit_s} {unit} ago"
    return "just now"


def clock_time(unix_ms: int) -> str:
    """A moment in the local time zone, to the second: `2026-01-31 14:05:09`."""
    return datetime.fromtimestamp(unix_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")
