"""Answers of a given form: the schema that is asked for, and the value that is made of the text.

A form is a type that msgspec knows (a Struct, a dataclass, a TypedDict, `list[…]`, `Literal[…]` …),
a pydantic model, a JSON schema, or what OpenAI calls `response_format`. The engine is held to the
schema while it writes. The text is looked at all the same: it may have been cut short by
`max_tokens`, and an answer that no engine wrote follows no schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar, cast

import msgspec

from autoglm.errors import InvalidRequest
from autoglm.text import one_line

T = TypeVar("T")
Form = type[T] | Mapping[str, Any]

_MESSAGE_CHARS = 200


class NotOfTheForm(ValueError):
    """The text is no such value; the message says where and why."""


class Format(Generic[T]):
    """One form: `schema` is JSON text, `read` makes a value of an answer."""

    def __init__(self, schema: str, read: Callable[[str], T]) -> None:
        self.schema = schema
        self._read = read

    def read(self, text: str) -> T:
        """Raises NotOfTheForm."""
        try:
            return self._read(text)
        except (ValueError, RecursionError) as error:
            raise NotOfTheForm(one_line(str(error), _MESSAGE_CHARS)) from None


def format_of(form: Form[T]) -> Format[T]:
    """What `form` stands for. Raises InvalidRequest when it is nothing of the kind."""
    if isinstance(form, Mapping):
        return cast("Format[T]", _of_schema(_unwrapped(form)))
    schema = getattr(form, "model_json_schema", None)
    if schema is not None:  # pydantic, which is not imported here
        return Format(_json(schema()), cast("Any", form).model_validate_json)
    try:
        found = msgspec.json.schema(form)
        decode = msgspec.json.Decoder(form).decode
    except TypeError as error:
        raise InvalidRequest(f"response_format: {one_line(str(error), _MESSAGE_CHARS)}") from None
    return Format(_json(_with_root(found)), decode)


def format_or_none(form: Form[T] | None) -> Format[T] | None:
    return None if form is None else format_of(form)


def _unwrapped(form: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, where it comes as OpenAI has it."""
    match form.get("type"):
        case "json_schema":
            inner = form.get("json_schema")
            if isinstance(inner, Mapping):
                return cast("Mapping[str, Any]", cast("Mapping[str, Any]", inner).get("schema", {}))
            raise InvalidRequest("response_format: json_schema holds no schema")
        case "json_object":
            return {"type": "object"}
        case _:
            return form


def _of_schema(schema: Mapping[str, Any]) -> Format[Any]:
    import jsonschema  # noqa: PLC0415 - slow to import, and few need it
    from jsonschema.validators import validator_for  # noqa: PLC0415
    from referencing import Registry  # noqa: PLC0415
    from referencing.exceptions import Unresolvable  # noqa: PLC0415

    kind: Any = validator_for(schema, jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InvalidRequest(
            f"response_format: not a JSON schema: {one_line(error.message, _MESSAGE_CHARS)}"
        ) from None
    # With a registry of its own, as jsonschema would otherwise fetch what a schema refers to.
    nothing_else = cast("Callable[[], Any]", Registry)()
    validator = kind(schema, registry=nothing_else)

    def read(text: str) -> Any:
        value = msgspec.json.decode(text)
        try:
            for error in validator.iter_errors(value):
                raise NotOfTheForm(f"{error.message} - at `{error.json_path}`")
        except Unresolvable as error:
            raise InvalidRequest(f"response_format: {error.ref} is not in the schema") from None
        return value

    return Format(_json(schema), read)


def _with_root(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its outermost type spelt out, as some grammars take no reference there."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    definitions = schema.get("$defs", {})
    if name not in definitions:
        return schema
    root = {**definitions[name], "$defs": definitions}
    if f'"#/$defs/{name}"' not in _json(definitions):
        root["$defs"] = {each: what for each, what in definitions.items() if each != name}
    return root if root["$defs"] else {key: root[key] for key in root if key != "$defs"}


def _json(schema: Mapping[str, Any]) -> str:
    try:
        return msgspec.json.encode(schema).decode()
    except TypeError as error:
        raise InvalidRequest(f"response_format: {error}") from None
