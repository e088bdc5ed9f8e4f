"""Reading one line of JSON strictly."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.jsonline import LINE_BYTES_MAX, BadLine, parse_object

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Half a surrogate pair has no UTF-8 and is refused.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=10,
)
objects = st.dictionaries(st.text("abcdef"), values)


@given(objects, st.booleans())
def test_every_object_comes_back_as_it_was_written(value: dict[str, Any], escaped: bool) -> None:
    line = json.dumps(value, ensure_ascii=escaped).encode() + b"\r\n"
    assert parse_object(line) == value


@given(st.binary())
def test_any_bytes_are_an_object_or_a_bad_line(line: bytes) -> None:
    with contextlib.suppress(BadLine):
        assert isinstance(parse_object(line), dict)


def test_a_byte_order_mark_is_let_pass_on_the_first_line_alone() -> None:
    line = b'\xef\xbb\xbf{"a": 1}'
    assert parse_object(line, first=True) == {"a": 1}
    with pytest.raises(BadLine):
        parse_object(line)


def test_the_longest_line_is_taken_and_a_longer_one_is_not() -> None:
    line = b'{"a": "' + b"x" * (LINE_BYTES_MAX - 9) + b'"}'
    assert len(line) == LINE_BYTES_MAX
    assert parse_object(line)
    with pytest.raises(BadLine) as refused:
        parse_object(line + b"\n")
    assert refused.value.code == "too_long"


@pytest.mark.parametrize("line", [b'{"a": 1, "a": 1}', b'{"x": [{"a": 1, "b": 2, "a": 3}]}'])
def test_a_key_given_twice_is_refused_at_any_depth(line: bytes) -> None:
    with pytest.raises(BadLine, match="a is given more than once") as refused:
        parse_object(line)
    assert refused.value.code == "duplicate_key"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "character 1"),
        (b"null", "an object"),
        (b'{"a": Infinity}', "Infinity is not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"a": "\\udc00"}', "surrogate"),
        (b'{"\\ud800": 1}', "surrogate"),
        (b'{"a": 1} {"a": 1}', "character 10"),
        (b'{"a": ' + b"[" * 1_000_000, "deep"),
        (b'{"a": "\xc3\x28"}', "UTF-8 at byte 8"),
        (b'{"a": "\x00"}', "control character"),
    ],
)
def test_what_is_no_json_is_told(line: bytes, words: str) -> None:
    with pytest.raises(BadLine, match=words) as refused:
        parse_object(line)
    assert refused.value.code == "not_json"


def test_a_whole_surrogate_pair_is_one_character() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
