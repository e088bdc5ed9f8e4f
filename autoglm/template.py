"""A prompt with places for columns: `Summarise: {text}`.

What stands between braces is the name of a column, to the letter, and nothing else: no attribute,
no index, no format can be asked of it, as rows and templates may come from different people. `{{`
and `}}` are braces.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from autoglm.errors import UsageError
from autoglm.text import one_line

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_NAME_CHARS = 40


class Template:
    """Raises UsageError for a brace that is alone, a place without a name, and no place at all."""

    def __init__(self, text: str) -> None:
        self._parts: list[str] = []
        """Text and names in turn, text first and last."""
        piece, end = "", 0
        for found in _PART.finditer(text):
            piece += text[end : found.start()]
            end = found.end()
            if found[0] in ("{{", "}}"):
                piece += found[0][0]
            elif found[1]:
                self._parts += [piece, found[1]]
                piece = ""
            else:
                what = "a place without a name" if found[0] == "{}" else f"a lone {found[0]}"
                raise UsageError(
                    f"--template: {what} at character {found.start() + 1};"
                    " write {column} for a column, {{ and }} for braces"
                )
        self._parts.append(piece + text[end:])
        self.columns = tuple(dict.fromkeys(self._parts[1::2]))
        """Each once, in the order they stand there."""
        if not self.columns:
            raise UsageError("--template names no column: write e.g. 'Summarise: {text}'")

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt of one row; every column must be there."""
        parts = self._parts
        filled = [values[part] if place % 2 else part for place, part in enumerate(parts)]
        return "".join(filled)


def no_column(name: str, known: Collection[str]) -> str:
    """`no column titel; did you mean title?`"""
    near = difflib.get_close_matches(name, known, n=1)
    columns = ", ".join(one_line(each, _NAME_CHARS) for each in known)
    hint = f"did you mean {one_line(near[0], _NAME_CHARS)}?" if near else f"there are: {columns}"
    return f"no column {one_line(name, _NAME_CHARS)}; {hint}"
