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

from autoglm.text import one_line
from autoglm.types import Likely, TokenLogprob
from model.engine import EngineRequest, RequestFailed

_FILLER: Final = ("and", "so", "it", "goes", "on", "word", "by", "word")
_PIECE_CHARS: Final = 8
_DEPTH_MAX: Final = 32
"""Of nested values: a schema that demands more demands itself."""
_SIZE_MAX: Final = 100_000
"""Of one value, in values and characters. It is made at once, and meanwhile the engine stands."""
_FORMATS: Final = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "email": "name@example.com",
}
"""Texts that are of a format of JSON Schema; a text of another one is the digest."""


class Words:
    """The digest of the prompt, then filler words: as many as wanted."""

    def __init__(self, digest: str) -> None:
        self._digest = digest

    def token(self, number: int) -> str:
        return f" {_FILLER[number % len(_FILLER)]}" if number else self._digest

    def text(self, tokens: int) -> str:
        return self._digest + _filler(tokens) if tokens else ""


class Pieces:
    """An answer whose tokens are these."""

    def __init__(self, pieces: Sequence[str]) -> None:
        self._pieces = pieces

    @property
    def tokens(self) -> int:
        return len(self._pieces)

    def token(self, number: int) -> str:
        return self._pieces[number]

    def text(self, tokens: int) -> str:
        return "".join(self._pieces[:tokens])


def answer_to(request: EngineRequest) -> Words | Pieces:
    """Raises RequestFailed for a schema that allows nothing that is known here."""
    digest = _digest(request)
    schema = request.sampling.json_schema
    if schema is None:
        return Words(digest)
    text = _instance(schema, digest)
    return Pieces([text[at : at + _PIECE_CHARS] for at in range(0, len(text), _PIECE_CHARS)])


def ended_by_stop(answer: Words | Pieces, tokens: int, request: EngineRequest) -> Pieces | None:
    """What is left of so many tokens when a stop string stands in them, or None.

    The tokens that the stop string is made of are counted, and hold nothing of it. As the first
    `min_tokens` are made, none is looked for.
    """
    if not request.sampling.stop:
        return None
    text = answer.text(tokens)
    after = len(answer.text(min(tokens, request.sampling.min_tokens or 0)))
    found = ((text.find(stop, after), len(stop)) for stop in request.sampling.stop)
    first = min(((at + size, at) for at, size in found if at >= 0), default=None)
    if first is None:
        return None
    over, end = first
    pieces: list[str] = []
    made = 0
    while made < over:
        piece = answer.token(len(pieces))
        pieces.append(piece[: max(0, end - made)])
        made += len(piece)
    return Pieces(pieces)


def certain(
    request: EngineRequest, answer: Words | Pieces, tokens: int
) -> tuple[TokenLogprob, ...] | None:
    """Log probabilities, if they are asked for."""
    asked = request.sampling.logprobs
    if asked is None:
        return None
    texts = map(answer.token, range(tokens))
    return tuple(TokenLogprob(text, 0.0, (Likely(text, 0.0),) if asked else ()) for text in texts)


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


_MALFORMED: Final = (
    *(msgspec.MsgspecError, TypeError, LookupError, ValueError, AttributeError, ArithmeticError),
    RecursionError,
)
"""What reading a schema raises that has something else where a number or a list belongs."""


def _instance(schema: str, digest: str) -> str:
    """JSON. Raises RequestFailed, for good, for a schema that gives none, whatever it holds."""
    try:
        root = msgspec.json.decode(schema)
        return msgspec.json.encode(_Instance(root, digest).value(root, 0)).decode()
    except _MALFORMED as error:
        raise _refusal(f"it is malformed: {one_line(str(error))}") from None


class _Instance:
    """One value in the making: so many values and characters, and no more."""

    def __init__(self, root: Schema, digest: str) -> None:
        self._root = root
        self._digest = digest
        self._left = _SIZE_MAX

    def value(self, schema: Any, depth: int) -> Any:
        """The plainest value that `schema` allows; texts hold the prompt's digest."""
        if depth > _DEPTH_MAX:
            raise _refusal("it holds itself without end")
        self._spend(1)
        if schema is True:
            return self._digest
        if not isinstance(schema, dict):
            raise _refusal("it allows nothing")
        each = cast("Schema", schema)
        if "$ref" in each:
            self._spend(len(each["$ref"]))
            return self.value(_found(each["$ref"], self._root), depth + 1)
        for name in ("const", "default"):
            if name in each:
                return self._given(each[name])
        if each.get("enum"):
            return self._given(each["enum"][0])
        for name in ("anyOf", "oneOf", "allOf"):
            if each.get(name):
                return self.value(each[name][0], depth + 1)
        kind = each.get("type", "object" if "properties" in each else "string")
        return self._of_kind(kind[0] if isinstance(kind, list) else kind, each, depth + 1)  # pyright: ignore[reportUnknownArgumentType]

    def _of_kind(self, kind: object, schema: Schema, depth: int) -> Any:
        match kind:
            case "object":
                properties: Schema = schema.get("properties", {})
                names = dict.fromkeys((*properties, *schema.get("required", ())))
                self._spend(sum(map(len, names)))
                return {name: self.value(properties.get(name, True), depth) for name in names}
            case "array":
                first: Sequence[Any] = schema.get("prefixItems", ())
                others = range(len(first), schema.get("minItems", 0))
                self._spend(len(others))
                rest = (schema.get("items", True) for _ in others)
                return [self.value(item, depth) for item in (*first, *rest)]
            case "string":
                return self._text(schema)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                raise _refusal(f"type {one_line(repr(kind))} is unknown")

    def _text(self, schema: Schema) -> str:
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        if schema.get("format") in _FORMATS:
            text = _FORMATS[schema["format"]]
            if least <= len(text) <= (len(text) if most is None else most):
                return text
        self._spend(least)
        return self._digest[: len(self._digest) if most is None else most].ljust(least, "x")

    def _given(self, value: object) -> object:
        """As it stands in the schema; that can be repeated."""
        self._spend(len(msgspec.json.encode(value)))
        return value

    def _spend(self, size: int) -> None:
        self._left -= max(0, size)
        if self._left < 0:
            raise _refusal(f"it demands more than {_SIZE_MAX} values and characters")


def _number(schema: Schema) -> int | float:
    """Raises TypeError for bounds that are no numbers."""
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
