"""Every field of the configuration: its path, what may stand there, its default, what it is for.

All of it is read off `Config` by way of its JSON schema, so no list of fields is kept by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import msgspec

from runtime.config import Config
from runtime.duration import Duration

_DURATION = {"type": ["string", "number"], "title": "duration", "examples": ["30s", "2h", "30d"]}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Field(NamedTuple):
    """`path` has NAME where a name of the person's own stands, and `[]` for each of a list."""

    path: str
    kind: str
    """What may stand there, in words; empty for a section."""
    default: str | None
    """As it would be written; None: it must be given, or there is none."""
    text: str


def schema() -> dict[str, Any]:
    """The JSON schema of a configuration file, for editors and other programs."""

    def custom(kind: type) -> dict[str, Any]:
        assert kind is Duration, kind
        return _DURATION

    found = msgspec.json.schema(Config, schema_hook=custom)
    rules = _properties(found, found["$defs"]["Config"])["priority_rules"]
    priority = _properties(found, found["$defs"]["KindRule"])["priority"]["anyOf"][0]
    rules["additionalProperties"] = {"anyOf": [priority, rules["additionalProperties"]]}
    return {"$schema": _DIALECT, "title": "autoglm configuration", **found}


def fields() -> Iterator[Field]:
    """Sections and fields, each section before what is in it."""
    whole = schema()
    yield from _walk(whole, whole["$defs"]["Config"], "")


def as_written(value: Any) -> Any:
    """A value of the configuration as a person would write it in a file."""
    return _plain(msgspec.to_builtins(value, enc_hook=_written))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in cast("dict[str, Any]", value).items()}
    whole = isinstance(value, float) and value.is_integer()
    return int(value) if whole else value


def _written(value: object) -> str:
    assert isinstance(value, Duration), value
    return value.written


def _walk(whole: Mapping[str, Any], section: Mapping[str, Any], prefix: str) -> Iterator[Field]:
    for name, value in _properties(whole, section).items():
        path = f"{prefix}{name}"
        inner, below = _section_in(whole, value)
        text = value.get("description") or (inner or {}).get("description", "")
        if inner is None:
            yield Field(path, _kind(value), _default(value), _one_line(text))
            continue
        yield Field(path, "", None, _one_line(text))
        yield from _walk(whole, inner, f"{path}{below}.")


def _section_in(
    whole: Mapping[str, Any], value: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, str]:
    """The section that stands there, by itself, under names or in a list."""
    named, listed = value.get("additionalProperties"), value.get("items")
    for holder, below in ((value, ""), (named, ".NAME"), (listed, "[]")):
        if isinstance(holder, dict):
            options = cast("dict[str, Any]", holder)
            for option in options.get("anyOf", [options]):
                if "$ref" in option:
                    return whole["$defs"][option["$ref"].rpartition("/")[2]], below
    return None, ""


def _properties(whole: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    assert whole
    return section["properties"]


def _kind(value: Mapping[str, Any]) -> str:
    if "anyOf" in value:
        return ", or ".join(_kind(each) for each in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{each}`" for each in value["enum"])
    if value.get("title") == "duration":
        return "a duration such as `30s` or `2h`"
    if "additionalProperties" in value:
        return f"names, each with {_kind(value['additionalProperties'])}"
    names = {
        "integer": "a whole number",
        "number": "a number",
        "string": "text",
        "boolean": "`true` or `false`",
        "null": "`null`",
    }
    bounds = (("minimum", "from"), ("exclusiveMinimum", "above"), ("maximum", "up to"))
    limits = [f" {word} {value[bound]}" for bound, word in bounds if bound in value]
    return "".join(itertools.chain([names[value["type"]]], limits))


def _default(value: Mapping[str, Any]) -> str | None:
    if "default" not in value:
        return None
    default = value["default"]
    return default if isinstance(default, str) else msgspec.json.encode(default).decode()


def _one_line(text: str) -> str:
    return " ".join(text.split())
