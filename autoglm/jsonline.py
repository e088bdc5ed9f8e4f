"""One line of JSON, read strictly: bytes to an object, or the reason why it is none.

The standard library's parser rather than msgspec's, because it tells of repeated keys: of two
`prompt`s in one line neither is surely the one that was meant.
"""

from __future__ import annotations

import codecs
import json
import math
from typing import Any, NoReturn, cast

from autoglm.text import one_line

LINE_BYTES_MAX = 16 * 1024 * 1024
"""Half a frame, so that any line's task fits one."""


class BadLine(Exception):
    """A line that is no task. `code` is for programs, the message for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_object(line: bytes, *, first: bool = False, finite: bool = False) -> dict[str, Any]:
    """The object on `line`; a byte order mark may precede the first line of a file. With `finite`,
    a number beyond a float's range is refused; without, it is infinite.

    Raises BadLine with code `too_long`, `not_json` or `duplicate_key`.
    """
    if len(line) > LINE_BYTES_MAX:
        raise BadLine("too_long", f"the line is longer than {LINE_BYTES_MAX} bytes")
    try:
        value: object = (_finite_decoder if finite else _decoder).decode(_text(line, first=first))
    except json.JSONDecodeError as error:
        raise BadLine("not_json", f"{_lower(error.msg)} at character {error.pos + 1}") from None
    except RecursionError:
        raise BadLine("not_json", "it is nested too deeply") from None
    except ValueError:
        raise BadLine("not_json", "a number has too many digits") from None
    if not isinstance(value, dict):
        raise BadLine("not_json", "expected an object: {…}")
    value = cast("dict[str, Any]", value)
    if b"\\ud" in line or b"\\uD" in line:
        _refuse_lone_surrogates(value)
    return value


def _text(line: bytes, *, first: bool) -> str:
    data = line.removeprefix(codecs.BOM_UTF8) if first else line
    try:
        return data.strip(b" \t\r\n").decode()
    except UnicodeDecodeError as error:
        raise BadLine("not_json", f"not UTF-8 at byte {error.start + 1}") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadLine("duplicate_key", f"{one_line(twice, 40)} is given more than once")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise BadLine("not_json", f"{name} is not JSON")


def _finite(digits: str) -> float:
    """JSON has no word for what a number beyond a float's range would be read as."""
    value = float(digits)
    if math.isinf(value):
        raise BadLine("not_json", f"{one_line(digits, 40)} is too large a number")
    return value


def _refuse_lone_surrogates(value: object) -> None:
    """JSON's escapes can spell half a character, which no encoding can carry any further."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        raise BadLine("not_json", "an escape spells half of a surrogate pair") from None


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_finite_decoder = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite
)
