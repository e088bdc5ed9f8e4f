"""Answers of a given form: the schema asked for, and what becomes of a text that is none."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, TypedDict

import msgspec
import pytest

from autoglm.errors import InvalidAnswer, InvalidRequest, TaskError
from autoglm.formats import Format, NotOfTheForm, format_of
from autoglm.outcomes import result_of
from autoglm.result import parsed
from autoglm.types import Answer, Choice, Output, Task, TaskState, Usage


class Address(msgspec.Struct):
    street: str
    number: int


class City(msgspec.Struct):
    name: str
    addresses: list[Address] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Pair(TypedDict):
    left: int


POINT = {
    "type": "object",
    "required": ["x"],
    "properties": {"x": {"type": "integer", "minimum": 1}},
}


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (City, '{"name": "Bern"}', City("Bern")),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Pair, '{"left": 1}', {"left": 1}),
        (list[Point], '[{"x": 1, "y": 2}]', [Point(1, 2)]),
        (Literal["yes", "no"], '"no"', "no"),
        (POINT, '{"x": 3}', {"x": 3}),
        (
            {"type": "json_schema", "json_schema": {"schema": POINT}},
            '{"x": 3}',
            {"x": 3},
        ),
        ({"type": "json_object"}, "{}", {}),
    ],
)
def test_a_text_of_the_form_becomes_its_value(form: Any, text: str, value: object) -> None:
    assert format_of(form).read(text) == value


def test_a_pydantic_model_is_a_form() -> None:
    pydantic = pytest.importorskip("pydantic")
    model = pydantic.create_model("Model", name=(str, ...))
    found = format_of(model)
    assert json.loads(found.schema)["required"] == ["name"]
    assert found.read('{"name": "x"}').name == "x"
    with pytest.raises(NotOfTheForm):
        found.read("{}")


@pytest.mark.parametrize(
    ("form", "text", "where"),
    [
        (City, '{"name": 3}', r"\$\.name"),
        (City, '{"name": "Ber', "truncated"),
        (Point, "hello", "malformed"),
        (POINT, '{"x": 0}', r"\$\.x"),
        (POINT, "[" * 100_000, "recursion"),
    ],
)
def test_a_text_of_another_form_is_refused_with_the_place(form: Any, text: str, where: str) -> None:
    with pytest.raises(NotOfTheForm, match=where) as refused:
        format_of(form).read(text)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("form", [object(), range, {"type": "nothing"}, {"type": "json_schema"}])
def test_what_is_no_form_is_refused_at_once(form: Any) -> None:
    with pytest.raises(InvalidRequest, match="response_format"):
        format_of(form)


def test_the_outermost_type_is_spelt_out_and_what_holds_itself_stays_whole() -> None:
    class Tree(msgspec.Struct):
        children: list[Tree]

    globals()["Tree"] = Tree
    assert json.loads(format_of(Point).schema)["type"] == "object"
    assert "$defs" not in json.loads(format_of(Point).schema)
    city = json.loads(format_of(City).schema)
    assert set(city["$defs"]) == {"Address"}
    tree = json.loads(format_of(Tree).schema)
    assert tree["type"] == "object"
    assert "Tree" in tree["$defs"]


def test_a_reference_to_another_machine_is_not_fetched() -> None:
    remote: dict[str, Any] = {"$ref": "http://127.0.0.1:9/schema.json"}
    wanted: Format[Any] = format_of(remote)
    with pytest.raises(InvalidRequest, match=r"127\.0\.0\.1"):
        wanted.read("{}")


def answered(text: str, finish_reason: str = "stop") -> Answer:
    output = Output(text, finish_reason, Usage(1, 2), others=(Choice("other", "stop"),))
    return Answer(Task("an-id", TaskState.SUCCEEDED), output)


def test_a_result_is_parsed_or_its_error_holds_the_text() -> None:
    good = parsed(result_of(answered('{"x": 1, "y": 2}')), format_of(Point))
    assert (good.parsed, good.usage, good.task.id) == (Point(1, 2), Usage(1, 2), "an-id")
    assert [choice.text for choice in good.choices] == [good.text, "other"]
    torn = result_of(answered('{"x": 1, ', "length"))
    with pytest.raises(InvalidAnswer, match="raise max_tokens") as refused:
        torn.parse(Point)
    assert isinstance(refused.value, TaskError)
    assert (refused.value.text, refused.value.result) == ('{"x": 1, ', torn)
    assert refused.value.task is not None
