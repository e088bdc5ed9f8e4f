"""The reference of docs/protocol.md, made from the messages themselves.

    python -P -m tests.protocol_page        writes it into the page

What the structs, their fields and their docstrings say is what the page says; a test holds it to
that.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from msgspec import inspect as types

from autoglm import wire

PAGE: Final = Path(__file__).parent.parent / "docs" / "protocol.md"
BEGIN: Final = "<!-- messages: python -P -m tests.protocol_page -->\n"
END: Final = "<!-- end of messages -->\n"

_NAMES: Final[tuple[tuple[type[types.Type], str], ...]] = (
    (types.BoolType, "boolean"),
    (types.IntType, "integer"),
    (types.FloatType, "number"),
    (types.StrType, "text"),
    (types.NoneType, "null"),
)


def rendered() -> str:
    """All requests, all replies, and what they hold, as Markdown."""
    requests, replies = get_args(wire.Request), get_args(wire.Reply)
    parts = ["### Requests\n", *map(_section, requests), "### Replies\n", *map(_section, replies)]
    held = _held([*requests, *replies])
    parts += ["### What they hold\n", *map(_section, sorted(held, key=lambda kind: kind.__name__))]
    return "\n".join(parts)


def tags(union: Any) -> list[str]:
    """The `type` of each message of a union."""
    return [kind.__struct_config__.tag for kind in get_args(union)]


def _section(kind: type[msgspec.Struct]) -> str:
    about, of_field = _docs(kind)
    rows = [
        f"| `{field.encode_name}` | {_name(field.type)} | {_default(field)} "
        f"| {of_field.get(field.name, '')} |"
        for field in _fields(kind)
    ]
    table = ["| field | type | left out | |", "|---|---|---|---|", *rows]
    return "\n".join(
        [f"#### {_title(kind)}\n", about, "", *(table if rows else ["No fields."]), ""]
    )


def _title(kind: type[msgspec.Struct]) -> str:
    tag = kind.__struct_config__.tag
    return str(tag) if isinstance(tag, str) else f"{kind.__name__} (object)"


def _fields(kind: type[msgspec.Struct]) -> list[types.Field]:
    info = types.type_info(kind)
    assert isinstance(info, types.StructType)
    return [field for field in info.fields if field.name != "rid"]


def _default(field: types.Field) -> str:
    if field.required:
        return "must be there"
    made = field.default_factory is not msgspec.NODEFAULT
    default = field.default_factory() if made else field.default
    return f"`{msgspec.json.encode(default).decode()}`"


def _name(of: types.Type) -> str:
    match of:
        case types.UnionType():
            return " or ".join(map(_name, of.types))
        case types.LiteralType(values) | types.EnumType(cls=values):
            return ", ".join(f"`{getattr(value, 'value', value)}`" for value in values)
        case types.VarTupleType(item, _, most):
            return f"list of {_name(item)}" + (f", at most {most:,}" if most else "")
        case types.TupleType(items):
            return f"list of {len(items)}: " + ", ".join(map(_name, items))
        case types.DictType(_, value):
            return f"map of text to {_name(value)}"
        case types.StructType(cls):
            return f"[{cls.__name__}](#{cls.__name__.lower()}-object)"
        case _:
            return next(name for kind, name in _NAMES if isinstance(of, kind))


def _held(kinds: list[type[msgspec.Struct]]) -> set[type[msgspec.Struct]]:
    """The structs that stand in fields of these, at any depth."""
    found: set[type[msgspec.Struct]] = set()
    left = list(kinds)
    while left:
        for field in _fields(left.pop()):
            fresh = set(_structs(field.type)) - found
            found |= fresh
            left += fresh
    return found


def _structs(of: types.Type) -> Iterator[type[msgspec.Struct]]:
    match of:
        case types.StructType(cls):
            yield cls
        case types.UnionType(parts) | types.TupleType(parts):
            for part in parts:
                yield from _structs(part)
        case types.VarTupleType(item) | types.DictType(_, item):
            yield from _structs(item)
        case _:
            pass


def _docs(kind: type[msgspec.Struct]) -> tuple[str, dict[str, str]]:
    """What the source says of the struct, and of its fields by name."""
    of_field: dict[str, str] = {}
    about = ""
    for each in reversed(kind.__mro__):
        if not issubclass(each, msgspec.Struct) or each is msgspec.Struct:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(each))).body
        assert isinstance(tree, ast.ClassDef)
        about = ast.get_docstring(tree) or ""
        for field, said in zip(tree.body, tree.body[1:], strict=False):
            match field, said:
                case (
                    ast.AnnAssign(target=ast.Name(name)),
                    ast.Expr(ast.Constant(str(text))),
                ):
                    of_field[name] = _for_all(" ".join(text.split())).replace("|", "\\|")
                case _:
                    pass
    return _for_all(about), of_field


def _for_all(text: str) -> str:
    """Without the words of Python."""
    words = {"None": "null", "True": "true", "False": "false"}
    return re.sub(r"\b(None|True|False)\b", lambda found: words[found[0]], text)


def main() -> int:
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n{rendered()}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
