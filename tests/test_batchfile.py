"""Lines of a job's input: what each form becomes, and why a line is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.batchfile import CHAT_URL, COMPLETION_URL, LineParser
from autoglm.ids import Ids
from autoglm.jsonline import LINE_BYTES_MAX
from autoglm.types import Message, TaskSpec
from autoglm.wire import FRAME_BYTES_MAX, JobLine, SubmitLines, encode_frame

NOW_MS = 1_700_000_000_000


def parser() -> LineParser:
    return LineParser("job", Ids(lambda: NOW_MS, lambda bits: 0))


def parse(line: bytes | dict[str, Any], number: int = 7) -> JobLine | None:
    return parser().parse(number, line if isinstance(line, bytes) else json.dumps(line).encode())


def task_of(line: bytes | dict[str, Any]) -> TaskSpec:
    parsed = parse(line)
    assert parsed is not None
    assert parsed.error is None, parsed.error
    assert parsed.task is not None
    return parsed.task


def refusal_of(line: bytes | dict[str, Any]) -> tuple[str, str]:
    parsed = parse(line)
    assert parsed is not None
    assert parsed.task is None
    assert parsed.error is not None
    assert "\n" not in parsed.error.message
    return parsed.error.code, parsed.error.message


def chat(**body: Any) -> dict[str, Any]:
    turns = [{"role": "user", "content": "Why?"}]
    return {
        "custom_id": "request-1",
        "method": "POST",
        "url": CHAT_URL,
        "body": {"model": "glm", "messages": turns} | body,
    }


# ── the forms ─────────────────────────────────────────────────────────────────────────────────


def test_an_openai_chat_line_keeps_its_name_its_url_and_its_settings() -> None:
    few_shot = [
        {"role": "system", "content": "You solve grade school maths."},
        {"role": "user", "content": "Natalia sold 48 clips in April and half as many in May."},
        {"role": "assistant", "content": "48 / 2 = 24, 48 + 24 = 72\n#### 72"},
        {"role": "user", "content": [{"type": "text", "text": "Weng earns $12 an hour."}]},
    ]
    parsed = parse(chat(messages=few_shot, max_tokens=512, temperature=0, stop="\n\n", seed=1))
    assert parsed is not None
    assert (parsed.line, parsed.custom_id, parsed.url) == (7, "request-1", CHAT_URL)
    assert parsed.task is not None
    assert parsed.task.messages[0] == Message("system", "You solve grade school maths.")
    assert parsed.task.messages[-1] == Message("user", "Weng earns $12 an hour.")
    sampling = parsed.task.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (512, 0, 1)
    assert sampling.stop == ("\n\n",)
    assert parsed.task.key == "job:7"


def test_an_openai_completion_line_is_continued_as_it_stands() -> None:
    line = {"custom_id": "c", "url": COMPLETION_URL, "body": {"prompt": "Once upon", "n": 1}}
    parsed = parse(line)
    assert parsed is not None
    assert parsed.url == COMPLETION_URL
    assert parsed.task is not None
    assert (parsed.task.prompt, parsed.task.messages) == ("Once upon", ())


def test_the_newer_name_of_max_tokens_counts_unless_the_two_differ() -> None:
    assert task_of(chat(max_completion_tokens=9)).sampling.max_tokens == 9
    assert task_of(chat(max_completion_tokens=9, max_tokens=9)).sampling.max_tokens == 9
    assert "differ" in refusal_of(chat(max_completion_tokens=9, max_tokens=8))[1]


def test_a_prompt_becomes_one_user_message_behind_its_system_message() -> None:
    task = task_of({"prompt": "Why?", "system": "Be brief.", "priority": 2, "max_tokens": 3})
    assert task.messages == (Message("system", "Be brief."), Message("user", "Why?"))
    assert (task.priority, task.sampling.max_tokens) == (2, 3)


def test_messages_stand_for_themselves() -> None:
    assert task_of({"messages": [{"role": "user", "content": "Hi"}]}).messages == (
        Message("user", "Hi"),
    )


@pytest.mark.parametrize(("task_id", "name"), [("t-1", "t-1"), (17, "17")])
def test_a_task_id_names_the_line_and_is_its_key(task_id: str | int, name: str) -> None:
    parsed = parse({"task_id": task_id, "model": "glm", "input": "Hi", "priority": 1})
    assert parsed is not None
    assert parsed.task is not None
    assert (parsed.custom_id, parsed.task.key) == (name, name)
    assert parsed.task.messages == (Message("user", "Hi"),)


def test_a_key_and_a_custom_id_of_its_own_win_over_the_task_id() -> None:
    parsed = parse({"task_id": "t", "input": "Hi", "key": "k", "custom_id": "c"})
    assert parsed is not None
    assert parsed.task is not None
    assert (parsed.custom_id, parsed.task.key) == ("c", "k")


def test_times_are_from_now() -> None:
    task = task_of({"prompt": "Hi", "max_attempts": 5, "attempt_timeout": "30s"})
    assert (task.max_attempts, task.attempt_timeout_s) == (5, 30)
    task = task_of({"prompt": "Hi", "deadline": "2h", "expires": 90})
    assert task.deadline_at == NOW_MS + 7_200_000
    assert task.expires_at == NOW_MS + 90_000


def test_null_counts_as_not_given() -> None:
    task = task_of({"prompt": "Hi", "messages": None, "max_tokens": None, "callback_url": None})
    assert task.sampling.max_tokens is None


@pytest.mark.parametrize("blank", [b"", b"\n", b" \t\r\n"])
def test_a_blank_line_is_no_line(blank: bytes) -> None:
    assert parse(blank) is None


def test_a_line_end_and_a_byte_order_mark_at_the_start_of_the_file_do_not_matter() -> None:
    parsed = parser().parse(1, b'\xef\xbb\xbf{"prompt": "Hi"}\r\n')
    assert parsed is not None
    assert parsed.task is not None


def test_fields_that_ask_for_nothing_are_let_pass() -> None:
    line = chat(n=1, stream=False, tools=[], logit_bias={}, response_format={"type": "text"})
    assert task_of(line)
    assert task_of(chat(user="u", metadata={"a": 1}, store=True, top_logprobs=0))


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


REFUSED: list[tuple[bytes | dict[str, Any], str, str]] = [
    (b"nonsense", "not_json", "character 1"),
    (b'{"prompt": "torn', "not_json", "unterminated"),
    (b"[1]", "not_json", "an object"),
    (b'{"prompt": "a", "prompt": "b"}', "duplicate_key", "prompt"),
    (b'{"prompt": "\xff"}', "not_json", "UTF-8"),
    (b'{"prompt": "a", "temperature": NaN}', "not_json", "NaN"),
    (b'{"prompt": "a", "temperature": 1e999}', "invalid_value", "temperature"),
    (b'{"prompt": "\\ud800"}', "not_json", "surrogate"),
    (b"[" * 100_000, "not_json", "deep"),
    (b'{"prompt": "' + b"x" * LINE_BYTES_MAX + b'"}', "too_long", "longer"),
    ({}, "missing_field", "prompt"),
    ({"custom_id": "x"}, "missing_field", "prompt"),
    ({"prompt": "a", "input": "b"}, "invalid_value", "can't stand together"),
    ({"prompt": ["a"]}, "invalid_value", "prompt"),
    ({"prompt": 5}, "invalid_value", "prompt"),
    ({"prompt": "a", "temprature": 1}, "unknown_field", "did you mean temperature"),
    ({"prompt": "a", "zzz": None}, "unknown_field", "zzz"),
    ({"prompt": "a", "callback_url": "http://x"}, "unsupported_field", "callback_url"),
    ({"prompt": "a", "priority": 12}, "invalid_value", "priority"),
    ({"prompt": "a", "priority": "high"}, "invalid_value", "priority"),
    ({"prompt": "a", "priority": True}, "invalid_value", "priority"),
    ({"prompt": "a", "weight": 11}, "invalid_value", "weight"),
    ({"prompt": "a", "factors": {"x": "high"}}, "invalid_value", "factors"),
    ({"prompt": "a", "factors": {"x": 11}}, "invalid_value", "factor x"),
    ({"prompt": "a", "max_tokens": 0}, "invalid_value", "max_tokens"),
    ({"prompt": "a", "max_tokens": 1.5}, "invalid_value", "max_tokens"),
    ({"prompt": "a", "top_p": 0}, "invalid_value", "top_p"),
    ({"prompt": "a", "stop": ["x", ""]}, "invalid_value", "stop"),
    ({"prompt": "a", "stop": [1]}, "invalid_value", "stop"),
    ({"prompt": "a", "tenant": ""}, "invalid_value", "tenant"),
    ({"prompt": "a", "key": "k" * 201}, "invalid_value", "key"),
    ({"prompt": "a", "deadline": "soon"}, "invalid_value", "deadline"),
    ({"prompt": "a", "expires": -1}, "invalid_value", "expires"),
    ({"prompt": "a", "max_attempts": 0}, "invalid_value", "max_attempts"),
    ({"prompt": "a", "attempt_timeout": "0s"}, "invalid_value", "attempt_timeout"),
    ({"prompt": "a", "system": 1}, "invalid_value", "system"),
    ({"input": "a", "task_id": 1.5}, "invalid_value", "task_id"),
    ({"input": "a", "task_id": True}, "invalid_value", "task_id"),
    ({"messages": []}, "invalid_value", "at least one"),
    ({"messages": "Hi"}, "invalid_value", "messages"),
    ({"messages": ["Hi"]}, "invalid_value", "a turn is an object"),
    ({"messages": [{"content": "Hi"}]}, "invalid_value", "role"),
    ({"messages": [{"role": "user", "content": 1}]}, "invalid_value", "content"),
    ({"messages": [{"role": "user", "content": "a", "tool_calls": []}]}, "invalid_value", "to"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "invalid_value",
        "image_url",
    ),
    (chat(messages=None), "missing_field", "body.messages"),
    (chat(n=2), "unsupported_field", "body.n"),
    (chat(n=True), "unsupported_field", "body.n"),
    (chat(logprobs=True), "unsupported_field", "body.logprobs"),
    (chat(tools=[{"type": "function"}]), "unsupported_field", "body.tools"),
    (chat(temprature=1), "unknown_field", "did you mean body.temperature"),
    (chat(temperature="hot"), "invalid_value", "body.temperature"),
    (chat() | {"url": "/v1/embeddings"}, "invalid_value", "url"),
    (chat() | {"method": "GET"}, "invalid_value", "method"),
    (chat() | {"body": []}, "invalid_value", "body"),
    (chat() | {"custom_id": 5}, "invalid_value", "custom_id"),
    ({"url": COMPLETION_URL, "body": {"prompt": ""}}, "invalid_value", "body.prompt"),
    ({"url": COMPLETION_URL, "body": {"prompt": ["a"]}}, "invalid_value", "body.prompt"),
]


@pytest.mark.parametrize(("line", "code", "words"), REFUSED)
def test_what_is_wrong_with_a_line_is_told(
    line: bytes | dict[str, Any], code: str, words: str
) -> None:
    given_code, message = refusal_of(line)
    assert given_code == code, message
    assert words in message


def test_a_refused_line_keeps_its_name() -> None:
    parsed = parse({"custom_id": "mine", "prompt": "a", "priority": 12})
    assert parsed is not None
    assert parsed.custom_id == "mine"
    parsed = parse({"task_id": "mine", "input": 5})
    assert parsed is not None
    assert parsed.custom_id == "mine"


# ── any bytes ─────────────────────────────────────────────────────────────────────────────────

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
FIELDS = (
    *("custom_id", "method", "url", "body", "messages", "prompt", "input", "task_id", "priority"),
    *(
        "weight",
        "factors",
        "queue",
        "system",
        "stop",
        "seed",
        "max_tokens",
        "deadline",
        "expires",
        "tenant",
        "role",
        "content",
    ),
)
objects = st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=6)


def assert_an_answer(parsed: JobLine | None) -> None:
    if parsed is not None:
        assert (parsed.task is None) != (parsed.error is None)
        assert len(encode_frame(SubmitLines(1, "job", (parsed,)))) <= FRAME_BYTES_MAX
        assert msgspec.json.encode(parsed)


@given(st.binary())
def test_no_bytes_raise(line: bytes) -> None:
    assert_an_answer(parse(line))


@given(objects)
def test_no_object_raises(line: dict[str, Any]) -> None:
    assert_an_answer(parse(line))


@given(objects)
def test_no_openai_body_raises(body: dict[str, Any]) -> None:
    for url in (CHAT_URL, COMPLETION_URL):
        assert_an_answer(parse({"custom_id": "x", "url": url, "body": body}))
