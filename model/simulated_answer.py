"""What the simulated engine says: the words of an answer, or an instance of a JSON schema.

Deterministic: the same prompt and the same schema give the same text. A token is a word, or a piece
of the JSON text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, cast

import msgspec

from model.engine import EngineRequest, RequestFailed

_FILLER: Final = ("and", "so", "it", "goes", "on", "word", "by", "word")
_PIECE_CHARS: Final = 8
_DEPTH_MAX: Final = 32
"""Of nested values: a schema that demands more demands itself."""


class Words:
    """The digest of the prompt, then filler words: as many as wanted."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def token(self, number: int) -> str:
        return f" {_FILLER[number % len(_FILLER)]}" if number else self._digest

    def text(self, tokens: int) -> str:
        return self._digest + _filler(tokens) if tokens else ""


class Json:
    """One value that a schema allows, cut into pieces."""

    def __init__(self, schema: str, digest: str) -> None:
        value = _instance(msgspec.json.decode(schema), digest)
        text = msgspec.json.encode(value).decode()
        self._pieces = [
            text[start : start + _PIECE_CHARS] for start in range(0, len(text), _PIECE_CHARS)
        ]

    @property
    def tokens(self) -> int:
        return len(self._pieces)

    def token(self, number: int) -> str:
        return self._pieces[number]

    def text(self, tokens: int) -> str:
        return "".join(self._pieces[:tokens])


def answer_to(request: EngineRequest) -> Words | Json:
    """Raises RequestFailed for a schema that allows nothing that is known here."""
    digest = _digest(request)
    schema = request.sampling.json_schema
    return Words(digest) if schema is None else Json(schema, digest)


def _digest(request: EngineRequest) -> str:
    users = (message.content for message in reversed(request.messages) if message.role == "user")
    text = next(users, request.prompt or "")
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache(maxsize=1024)
def _filler(tokens: int) -> str:
    """All words of an answer of that many tokens but the first."""
    rounds, rest = divmod(tokens, len(_FILLER))
    words = "".join(f" {word}" for word in _FILLER)
    last = "".join(f" {word}" for word in _FILLER[:rest])
    return (words * rounds + last)[len(_FILLER[0]) + 1 :]


# ── an instance of a schema ──────────────────────────────────────────────────────────────────────

Schema = Mapping[str, Any]


def _instance(root: Schema, digest: str) -> Any:
    return _value(root, root, digest, 0)


def _value(schema: Any, root: Schema, digest: str, depth: int) -> Any:
    """The plainest value that `schema` allows; texts hold the prompt's digest."""
    if depth > _DEPTH_MAX:
        raise _refusal("it holds itself without end")
    if schema is True:
        return digest
    if not isinstance(schema, dict):
        raise _refusal("it allows nothing")
    each = cast("Schema", schema)
    if "$ref" in each:
        return _value(_found(each["$ref"], root), root, digest, depth + 1)
    for name in ("const", "default"):
        if name in each:
            return each[name]
    if each.get("enum"):
        return each["enum"][0]
    for name in ("anyOf", "oneOf", "allOf"):
        if each.get(name):
            return _value(each[name][0], root, digest, depth + 1)
    kind = each.get("type", "object" if "properties" in each else "string")
    return _of_kind(kind[0] if isinstance(kind, list) else kind, each, root, digest, depth + 1)  # pyright: ignore[reportUnknownArgumentType]


def _of_kind(kind: object, schema: Schema, root: Schema, digest: str, depth: int) -> Any:
    match kind:
        case "object":
            properties: Schema = schema.get("properties", {})
            return {
                name: _value(properties.get(name, True), root, digest, depth)
                for name in dict.fromkeys((*properties, *schema.get("required", ())))
            }
        case "array":
            first: Sequence[Any] = schema.get("prefixItems", ())
            count = max(schema.get("minItems", 0), len(first))
            items = [*first, *[schema.get("items", True)] * (count - len(first))]
            return [_value(item, root, digest, depth) for item in items]
        case "string":
            least, most = schema.get("minLength", 0), schema.get("maxLength", len(digest))
            return digest[:most].ljust(least, "x")
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            raise _refusal(f"type {kind!r} is unknown")


def _number(schema: Schema) -> int | float:
    least = schema.get("minimum", schema.get("exclusiveMinimum"))
    most = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is None:
        return 0 if most is None or most > 0 else most - ("exclusiveMaximum" in schema)
    return least + ("exclusiveMinimum" in schema)


def _found(reference: object, root: Schema) -> Any:
    found: object = root
    for step in str(reference).removeprefix("#").split("/")[1:]:
        found = cast("Schema", found).get(step) if isinstance(found, dict) else None
    if found is None:
        raise _refusal(f"{reference} is not in it")
    return found


def _refusal(why: str) -> RequestFailed:
    message = f"the JSON schema can't be served: {why}"
    return RequestFailed("invalid_request", message, permanent=True)
