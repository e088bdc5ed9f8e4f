"""The input of a job as lines of bytes, whatever it holds."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from autoglm.bits import Bits
from autoglm.errors import UsageError
from autoglm.jsonline import LINE_BYTES_MAX
from autoglm.text import one_line

_SKIP_BYTES = 1024 * 1024


class Survey(msgspec.Struct, frozen=True):
    """What one pass over the input tells: enough to know it again."""

    sha256: str
    tasks: int
    """Lines that are not blank."""
    blank: Bits
    """The numbers of the others."""


class InputFile:
    """One pass over a file, during which `sha256` grows to cover all of it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Each line with its number, from 1. One that is over the limit comes cut off just
        beyond it, so that memory is bounded and the line's reader still sees that it is too long.
        """
        number = 0
        while line := self._read(LINE_BYTES_MAX + 1):
            number += 1
            rest = line
            while not rest.endswith(b"\n") and (rest := self._read(_SKIP_BYTES)):
                pass
            yield number, line

    def _read(self, size: int) -> bytes:
        data = self._file.readline(size)
        self._digest.update(data)
        return data


def survey(path: Path) -> Survey:
    """Read the whole file once. Raises UsageError when it can't be read."""
    with open_input(path) as file:
        source, blank, tasks = InputFile(file), Bits(), 0
        for number, line in source.lines():
            if line.strip():
                tasks += 1
            else:
                blank.add(number)
        return Survey(source.sha256, tasks, blank)


def open_input(path: Path) -> BinaryIO:
    """The file, which must be a real one as it is read more than once. Raises UsageError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UsageError(f"{one_line(str(path))}: not a regular file")
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{one_line(str(path))}: {error.strerror}") from None
