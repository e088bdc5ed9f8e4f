"""A configuration file as it stands there: its keys and values, and in which line each is.

PyYAML takes a key that is given twice and forgets the first; here it is refused, as one of the two
was meant for something.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import yaml

from autoglm.errors import ConfigError
from autoglm.text import one_line

NOT_YAML = (
    *(msgspec.DecodeError, yaml.YAMLError, RecursionError, ArithmeticError, AttributeError),
    *(LookupError, TypeError, ValueError),
)
"""What the parser raises: not YAML, nesting without end, and PyYAML's own stumbles over a value
that is not of the type its tag names, such as `!!timestamp x`.
"""
NAME_CHARS_SHOWN = 40
DEPTH_MAX = 100
"""Of sections and lists in each other. The loader in C takes stack for each, and dies of many."""
# The loader in C is there where PyYAML was built with it; the stubs leave its results open.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Place(NamedTuple):
    """Of a key or a value, from 1."""

    line: int
    column: int


class ConfigFile(NamedTuple):
    """`tree` is what the file says. `keys`: where each path stands (`queues.core.weight`,
    `priority_conditions[0].kind`); `values`: and what is no section, its value.
    """

    path: Path
    tree: dict[str, Any]
    keys: dict[str, Place]
    values: dict[str, Place]

    def locate(self, at: str, *, key: bool = False) -> Place | None:
        """Where the value of `at` stands, or its `key`; if neither does, what it would be in."""
        if key and at in self.keys:
            return self.keys[at]
        while at:
            if place := self.values.get(at) or self.keys.get(at):
                return place
            at = at[: max(at.rfind("."), at.rfind("["), 0)]
        return None


def read_file(path: Path) -> ConfigFile:
    """Raises ConfigError, with the line and the column where there is one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror}") from None
    try:
        if (deep := too_deep(data)) is not None:
            raise fault(path, deep, f"nested more than {DEPTH_MAX} deep")
        root = _compose(data)
        tree = msgspec.yaml.decode(data)
    except NOT_YAML as error:
        raise _not_yaml(path, error) from None
    if tree is None:
        return ConfigFile(path, {}, {}, {})
    if not isinstance(tree, dict):
        raise fault(path, Place(1, 1), "expected keys and values, such as `engine:`")
    keys: dict[str, Place] = {}
    values: dict[str, Place] = {}
    for at, first, value in _walk(path, root):
        keys.setdefault(at, _place(first))
        if not isinstance(value, yaml.MappingNode):
            values.setdefault(at, _place(value))
    return ConfigFile(path, cast("dict[str, Any]", tree), keys, values)


def fault(path: Path, place: Place | None, message: str, at: str | None = None) -> ConfigError:
    """`autoglm.yaml:3:14: what is wrong`."""
    if place is None:
        return ConfigError(f"{path}: {message}", at=at)
    where = f"{path}:{place.line}:{place.column}"
    return ConfigError(f"{where}: {message}", at=at, line=place.line, column=place.column)


def too_deep(data: bytes) -> Place | None:
    """Where `data` is nested deeper than it may be, before anything reads it that recurses.

    Raises one of NOT_YAML.
    """
    depth = 0
    events = cast("Iterator[yaml.Event]", yaml.parse(data, Loader=_LOADER))  # pyright: ignore[reportUnknownMemberType]
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                return Place(event.start_mark.line + 1, event.start_mark.column + 1)
    return None


def _compose(data: bytes) -> yaml.Node | None:
    return cast("yaml.Node | None", yaml.compose(data, Loader=_LOADER))  # pyright: ignore[reportUnknownMemberType]


def _walk(path: Path, root: yaml.Node | None) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Every path with the nodes of its key and its value; raises ConfigError for a key twice.

    A node that an alias repeats is looked at once: repetition can be without end.
    """
    seen: set[int] = set()
    waiting: list[tuple[str, yaml.Node | None]] = [("", root)]
    while waiting:
        at, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                name = one_line(str(getattr(key, "value", "")), NAME_CHARS_SHOWN)
                full = f"{at}.{name}" if at else name
                if full in lines:
                    twice = f"{full} is given twice; it stands in line {lines[full]} already"
                    raise fault(path, _place(key), twice, full)
                lines[full] = _place(key).line
                yield full, key, value
                waiting.append((full, value))
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                full = f"{at}[{number}]"
                yield full, value, value
                waiting.append((full, value))


def _place(node: yaml.Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _not_yaml(path: Path, error: Exception) -> ConfigError:
    marked = error if isinstance(error, yaml.MarkedYAMLError) else error.__context__
    if not isinstance(marked, yaml.MarkedYAMLError) or marked.problem_mark is None:
        return ConfigError(f"configuration file {path} is not YAML: {one_line(str(error))}")
    mark = marked.problem_mark
    context = f" {marked.context}" if marked.context else ""
    what = f"this is not YAML: {one_line(f'{marked.problem}{context}')}"
    return fault(path, Place(mark.line + 1, mark.column + 1), what)
