"""A template is text with names of columns, and nothing that a name could do more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import UsageError
from autoglm.template import Template, no_column


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("Summarise: {text}", "Summarise: a {b}"),
        ("{text}{text}", "a {b}a {b}"),
        ("{{text}} {text}", "{text} a {b}"),
        ("{{{text}}}", "{a {b}}"),
        ("{First Name}: {text!r:>9}", "Ann: odd"),
        ("{text.__class__}", "no attribute"),
    ],
)
def test_a_place_is_filled_with_the_column_of_just_that_name(template: str, prompt: str) -> None:
    values = {"text": "a {b}", "First Name": "Ann", "text!r:>9": "odd"}
    assert Template(template).fill(values | {"text.__class__": "no attribute"}) == prompt


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{}", "a place without a name at character 1"),
        ("ab {text", "a lone { at character 4"),
        ("text} {text}", "a lone } at character 5"),
        ("{a{b}}", "a lone { at character 1"),
        ("no place", "names no column"),
        ("{{text}}", "names no column"),
    ],
)
def test_a_template_that_is_none_is_refused(template: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        Template(template)
    assert said in str(refused.value)


@given(st.text(), st.text())
def test_what_is_escaped_comes_out_as_it_was(before: str, value: str) -> None:
    escaped = before.replace("{", "{{").replace("}", "}}")
    assert Template(f"{escaped}{{x}}").fill({"x": value}) == before + value


def test_a_column_there_is_not_is_named_with_the_nearest() -> None:
    assert no_column("titel", ("id", "title")) == "no column titel; did you mean title?"
    assert no_column("zzz", ("id", "title")) == "no column zzz; there are: id, title"
