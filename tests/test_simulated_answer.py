"""What the simulated engine says to a schema is an instance of it, and always the same one."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from autoglm.formats import format_of
from autoglm.types import Message, Sampling
from model.engine import EngineRequest, RequestFailed
from model.simulated_answer import Pieces, answer_to

DEFINED = {
    f"d{n}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/d{n + 1}"}] * 20}
    for n in range(12)
}
WIDE = json.dumps({"$ref": "#/$defs/d0", "$defs": DEFINED | {"d12": True}})
"""20**12 values."""


class Inner(msgspec.Struct):
    count: int
    kind: str | None = None


class Outer(msgspec.Struct):
    name: str
    inner: Inner
    several: list[Inner]
    share: float


def asked(schema: str) -> EngineRequest:
    return EngineRequest("t", 1, (Message("user", "hello"),), sampling=Sampling(json_schema=schema))


def said(schema: str) -> str:
    answer = answer_to(asked(schema))
    assert isinstance(answer, Pieces)
    assert answer.text(answer.tokens) == "".join(map(answer.token, range(answer.tokens)))
    return answer.text(answer.tokens)


@pytest.mark.parametrize(
    "form",
    [
        Outer,
        list[Outer],
        {"enum": ["left", "right"]},
        {"const": 7},
        {"type": "array", "minItems": 2, "items": {"type": "boolean"}},
        {"type": "integer", "exclusiveMinimum": 3, "maximum": 9},
        {"type": "number", "maximum": -2},
        {"type": "string", "minLength": 40, "maxLength": 41},
        {"anyOf": [{"type": "null"}, {"type": "string"}]},
        {"type": ["string", "null"]},
        {"type": "object", "required": ["x"]},
        date,
        Annotated[datetime, msgspec.Meta(tz=True)],
        UUID,
        {"type": "string", "format": "email", "maxLength": 4},
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]},
        {},
    ],
)
def test_an_answer_is_an_instance_of_its_schema(form: Any) -> None:
    wanted = format_of(form)
    text = said(wanted.schema)
    wanted.read(text)
    assert said(wanted.schema) == text


def test_texts_hold_the_digest_of_the_prompt() -> None:
    value = json.loads(said('{"type": "object", "properties": {"a": {"type": "string"}}}'))
    assert value == {"a": "2cf24dba5fb0a30e"}


@pytest.mark.parametrize(
    "schema",
    [
        '{"type": "unheard"}',
        '{"$ref": "#/$defs/missing"}',
        '{"$ref": "#"}',
        '{"type": "object", "required": ["x"], "properties": {"x": false}}',
        '{"type": "string", "minLength": 3000000000}',
        '{"type": "array", "minItems": 3000000000}',
        '{"type": "array", "minItems": 99999, "items": {"const": "xxxxxxxx"}}',
        WIDE,
        '{"type": []}',
        '{"type": {}}',
        '{"enum": 5}',
        '{"anyOf": {}, "oneOf": {"a": 1}}',
        '{"minLength": "a"}',
        '{"maxLength": "a"}',
        '{"properties": 5}',
        '{"type": "object", "required": 5}',
        '{"type": "object", "required": [[1]]}',
        '{"type": "object", "required": [5]}',
        '{"type": "array", "prefixItems": 5}',
        '{"type": "array", "minItems": 1.5}',
        '{"type": "integer", "minimum": "a"}',
        '{"type": "integer", "exclusiveMaximum": []}',
        '{"type": "string", "format": []}',
        "5",
        "{",
        "[" * 100_000,
        '{"$ref": 5}',
    ],
)
def test_a_schema_that_can_t_be_followed_fails_for_good(schema: str) -> None:
    with pytest.raises(RequestFailed, match="JSON schema") as refused:
        answer_to(asked(schema))
    assert refused.value.permanent
