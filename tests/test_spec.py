"""From what a person hands in to a task: what is understood, and what is refused at once."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from autoglm.errors import InvalidRequest
from autoglm.prompts import messages_of
from autoglm.spec import TASK_BYTES_MAX, size_bytes, task_spec
from autoglm.types import Message, Sampling, TaskSpec
from autoglm.wire import FRAME_BYTES_MAX

NOW_MS = 1_700_000_000_000


def spec(prompt: Any = "hello", **options: Any) -> TaskSpec:
    return task_spec(prompt, id="an-id", now_ms=NOW_MS, **options)


def test_a_text_is_one_user_message() -> None:
    assert spec("hello").messages == (Message("user", "hello"),)
    assert spec("").messages == (Message("user", ""),)


def test_a_system_message_comes_first() -> None:
    turns = [{"role": "user", "content": "Hi"}, Message("assistant", "Hello")]
    assert spec(turns, system="Be brief.").messages == (
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message("assistant", "Hello"),
    )


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert messages_of([{"role": "user", "content": parts}]) == (Message("user", "ab"),)


def test_named_options_win_over_sampling() -> None:
    rarer = Sampling(top_k=5, max_tokens=9, stop=("x",))
    sampling = spec(sampling=rarer, max_tokens=3).sampling
    assert (sampling.top_k, sampling.max_tokens, sampling.stop) == (5, 3, ("x",))


def test_one_text_stands_for_one_stop_and_one_id() -> None:
    task = spec(stop="END", after="other")
    assert (task.sampling.stop, task.after) == (("END",), ("other",))


def test_times_are_from_now_in_seconds_or_words() -> None:
    task = spec(deadline="2h", expires=0.5)
    assert (task.deadline_at, task.expires_at) == (NOW_MS + 7_200_000, NOW_MS + 500)


def test_an_attempt_has_the_limits_that_are_given_and_else_the_servers() -> None:
    task = spec(max_attempts=5, attempt_timeout="2m")
    assert (task.max_attempts, task.attempt_timeout_s) == (5, 120)
    assert (spec().max_attempts, spec().attempt_timeout_s) == (None, None)


@pytest.mark.parametrize(
    "options",
    [
        *({"priority": 0}, {"priority": 9}, {"max_tokens": 1}, {"temperature": 0}, {"top_p": 1}),
        *({"seed": -(2**63)}, {"tenant": "t" * 200}, {"expires": 0}),
        *({"max_attempts": 1}, {"max_attempts": 1000}, {"attempt_timeout": 0.001}),
        {"sampling": Sampling(top_k=-1, repetition_penalty=1.1)},
    ],
)
def test_the_ends_of_every_range_are_taken(options: dict[str, Any]) -> None:
    spec(**options)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"priority": -1}, "priority -1"),
    ({"priority": 10}, "priority 10"),
    ({"max_tokens": 0}, "max_tokens 0"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": float("nan")}, "temperature nan"),
    ({"temperature": float("inf")}, "temperature inf"),
    ({"top_p": 0}, "top_p 0.0: above 0"),
    ({"top_p": 1.1}, "top_p"),
    ({"seed": 2**63}, "seed"),
    ({"stop": ["a", ""]}, "stop"),
    ({"sampling": Sampling(repetition_penalty=0)}, "repetition_penalty"),
    ({"tenant": ""}, "tenant: from 1 to 200 characters, not 0"),
    ({"key": "k" * 201}, "key"),
    ({"queue": ""}, "queue"),
    ({"kind": ""}, "kind"),
    ({"tenant": "a\0b"}, r"tenant: a name holds no control character, such as '.x00'"),
    *(({field: "a\nb"}, f"{field}: a name holds") for field in ("key", "queue", "kind")),
    ({"key": "a\x9b"}, "key: a name holds"),
    ({"factors": {"a\x7f": 1}}, "factor"),
    ({"deadline": "soon"}, "deadline: no duration"),
    ({"expires": -1}, "expires"),
    ({"deadline": [1]}, "deadline: seconds or words such as 2h, not list"),
    ({"priority": 2**70}, "priority: an integer of at most 64 bits"),
    ({"factors": {"a": 2**70}}, "factors: an integer of at most 64 bits"),
    ({"max_attempts": 0}, "max_attempts 0: from 1"),
    ({"max_attempts": 1001}, "max_attempts 1001"),
    ({"attempt_timeout": 0}, "attempt_timeout_s 0.0: above 0"),
    ({"attempt_timeout": "soon"}, "attempt_timeout: no duration"),
    ({"prompt": []}, "at least one"),
    ({"prompt": [{"role": "user"}]}, "content"),
    ({"prompt": [{"role": "", "content": "x"}]}, "role"),
    ({"prompt": [{"role": "user", "content": "x", "tool_calls": []}]}, "tool_calls"),
    ({"prompt": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
    ({"prompt": ["hello"]}, "a turn is an object"),
    ({"prompt": None}, "a prompt is a text or a list of messages, not None"),
    ({"prompt": 5}, "a prompt is a text or a list of messages, not int 5"),
    ({"prompt": float("nan")}, "not float nan"),
    ({"prompt": b"hello"}, "not bytes"),
    ({"prompt": {"role": "user", "content": "x"}}, "not dict"),
    ({"prompt": TaskSpec("an-id", ())}, "not a TaskSpec: submit_many takes those"),
    ({"prompt": [{1: "x", "y": 2}]}, "1 is not supported"),
    ({"after": None}, "after: tasks or their ids, not None"),
    ({"stop": 5}, "stop: a text or several, not int"),
    ({"factors": 5}, "factors: names with numbers, not int 5"),
    ({"sampling": "hot"}, "sampling: an autoglm.Sampling, not str"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_what_no_server_could_take_is_refused_by_its_name(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        spec(**options)


def test_half_a_character_is_refused_before_it_is_sent() -> None:
    with pytest.raises(InvalidRequest, match="Unicode"):
        size_bytes(spec("\ud800"))


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("max_new_tokens", 5, "did you mean max_tokens"),
        ("temprature", 1, "did you mean temperature"),
        ("max_tokens", "many", "max_tokens: expected `?int"),
        ("max_tokens", 2.5, "max_tokens: expected `?int"),
        ("temperature", "hot", "temperature: expected `?float"),
        ("priority", 2.5, "priority: expected `?int"),
        ("stream", "yes", "stream: expected `?bool"),
        ("kind", 3, "kind: expected `?str"),
        ("n", 0, "n 0: from 1"),
        ("logprobs", 21, "logprobs 21: from 0 to 20"),
        ("stop", [1], "stop: expected `?str"),
        ("seed", 2**70, "seed: an integer of at most 64 bits"),
    ],
)
def test_a_wrong_name_or_value_is_one_sentence(option: str, value: object, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        spec(**{option: value})
    assert "\n" not in str(refused.value)


class Name(str):
    __slots__ = ()


class Count:
    def __index__(self) -> int:
        return 3


def test_texts_and_numbers_may_be_of_derived_classes() -> None:
    task = spec(Name("hello"), queue=Name("q"), max_tokens=Count(), temperature=Fraction(1, 2))
    assert (task.messages, task.queue) == ((Message("user", "hello"),), "q")
    assert (task.sampling.max_tokens, task.sampling.temperature) == (3, 0.5)
    assert {type(task.messages[0].content), type(task.queue)} == {str}


def test_a_task_that_fits_into_no_message_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=f"a task takes up to {TASK_BYTES_MAX} bytes"):
        spec("x" * FRAME_BYTES_MAX)
    assert TASK_BYTES_MAX < FRAME_BYTES_MAX


def test_a_stream_is_of_one_answer() -> None:
    assert spec(n=2).sampling.n == 2
    with pytest.raises(InvalidRequest, match="a stream is of one answer"):
        spec(n=2, stream=True)


@pytest.mark.parametrize("schema", ["", "[]", "{", "3", "{} {}", "[" * 100_000])
def test_a_schema_that_is_no_json_object_is_refused(schema: str) -> None:
    with pytest.raises(InvalidRequest, match="json_schema"):
        spec(sampling=Sampling(json_schema=schema))
