"""Admission: what is no task is refused with the field's name, and nothing else is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.admission import LINE_MAX, check_lines, check_task, edit_of
from autoglm.errors import InvalidRequest
from autoglm.given import priority_of
from autoglm.sampling import STOPS_MAX
from autoglm.spec import AFTER_MAX, FACTORS_MAX, NAME_CHARS_MAX, TIME_MS_MAX
from autoglm.types import ErrorInfo, Message, Sampling, TaskSpec
from autoglm.wire import TASKS_PER_SUBMIT_MAX, Edit, JobLine
from runtime.queueconfig import QUEUES

ID = "0" * 26


def spec(**changes: Any) -> TaskSpec:
    return msgspec.structs.replace(TaskSpec(ID, prompt="hello"), **changes)


def sampling(**changes: Any) -> TaskSpec:
    return spec(sampling=Sampling(**changes))


def test_a_plain_task_is_taken_as_it_is() -> None:
    assert check_task(spec(), None, QUEUES) == spec()


def test_a_bound_connection_makes_every_task_its_tenants() -> None:
    assert check_task(spec(tenant="other"), "mine", QUEUES).tenant == "mine"


@pytest.mark.parametrize(
    ("queue", "said"),
    [
        ("bakground", "no queue 'bakground'; did you mean background?"),
        ("x\u2028", "no queue 'x'; there are: core, normal, background"),
    ],
)
def test_a_queue_that_nobody_made_is_refused_with_the_nearest_one(queue: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_task(spec(queue=queue), None, QUEUES)
    assert str(refusal.value) == said
    (line,) = check_lines([JobLine(1, task=spec(queue=queue))], None, QUEUES)
    assert line.error == ErrorInfo("invalid_request", said)


@pytest.mark.parametrize(
    ("task", "named"),
    [
        (spec(id=""), "id"),
        (spec(id="0" * 27), "id"),
        (spec(id="-" * 26), "id"),
        (spec(priority=-1), "priority"),
        (spec(priority=10), "priority"),
        (spec(weight=10.5), "weight"),
        (spec(weight=float("nan")), "weight"),
        (spec(factors={"a": -1}), "factor a"),
        (spec(factors={"": 1}), "factor's name"),
        (spec(factors={str(n): 1 for n in range(FACTORS_MAX + 1)}), "factors"),
        (spec(prompt=None), "messages or a prompt"),
        (spec(messages=(Message("user", "x"),)), "messages or a prompt"),
        (spec(tenant=""), "tenant"),
        (spec(queue="q" * (NAME_CHARS_MAX + 1)), "queue"),
        (spec(key=""), "key"),
        (spec(kind=""), "kind"),
        (spec(deadline_at=-1), "deadline_at"),
        (spec(expires_at=2**63), "expires_at"),
        (spec(max_attempts=0), "max_attempts"),
        (spec(max_attempts=2**63), "max_attempts"),
        (spec(attempt_timeout_s=0), "attempt_timeout_s"),
        (spec(attempt_timeout_s=float("nan")), "attempt_timeout_s"),
        (spec(attempt_timeout_s=float("inf")), "attempt_timeout_s"),
        (sampling(max_tokens=0), "max_tokens"),
        (sampling(min_tokens=-1), "min_tokens"),
        (sampling(temperature=-0.1), "temperature"),
        (sampling(temperature=float("nan")), "temperature"),
        (sampling(top_p=1.1), "top_p"),
        (sampling(min_p=float("nan")), "min_p"),
        (sampling(presence_penalty=2.1), "presence_penalty"),
        (sampling(frequency_penalty=-2.1), "frequency_penalty"),
        (sampling(top_p=0), "top_p"),
        (sampling(top_k=2**63), "top_k"),
        (sampling(seed=2**63), "seed"),
        (sampling(repetition_penalty=float("inf")), "repetition_penalty"),
        (spec(after=("x",) * (AFTER_MAX + 1)), "after"),
        (sampling(stop=("",)), "stop"),
        (sampling(stop=("x",) * (STOPS_MAX + 1)), "stop"),
    ],
)
def test_what_is_wrong_is_named(task: TaskSpec, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        check_task(task, None, QUEUES)


def test_a_bad_line_becomes_a_failed_one() -> None:
    (checked,) = check_lines([JobLine(7, "custom", task=spec(priority=10))], None, QUEUES)
    assert (checked.line, checked.custom_id, checked.task) == (7, "custom", None)
    assert checked.error is not None
    assert checked.error.code == "invalid_request"


@pytest.mark.parametrize("field", ["tenant", "key", "kind"])
def test_a_name_with_a_nul_makes_a_bad_line_whatever_the_client_let_through(field: str) -> None:
    task = msgspec.structs.replace(spec(), **{field: "a\0b"})
    (checked,) = check_lines([JobLine(7, task=task)], None, QUEUES)
    assert checked.task is None
    assert checked.error is not None
    assert checked.error.message.startswith(f"{field}: a name holds no control character")


def test_a_line_that_failed_before_stays_as_it_is() -> None:
    line = JobLine(7, error=ErrorInfo("bad_json", "no"))
    assert check_lines([line], None, QUEUES) == (line,)


@pytest.mark.parametrize(
    "numbers",
    [[0], [-1], [LINE_MAX + 1], [2**63], [1, 1], [2, 1], range(1, TASKS_PER_SUBMIT_MAX + 2)],
)
def test_lines_that_are_not_numbered_upwards_or_are_too_many_are_refused(
    numbers: list[int],
) -> None:
    with pytest.raises(InvalidRequest, match="line"):
        check_lines([JobLine(number) for number in numbers], None, QUEUES)


NUMBERS = st.none() | st.integers(-(2**63), 2**64 - 1)
FLOATS = st.none() | st.floats()


@given(
    st.builds(
        TaskSpec,
        id=st.text(max_size=30) | st.just(ID),
        messages=st.lists(st.builds(Message, st.text(), st.text()), max_size=2).map(tuple),
        prompt=st.none() | st.text(),
        sampling=st.builds(
            Sampling,
            max_tokens=NUMBERS,
            min_tokens=NUMBERS,
            temperature=FLOATS,
            top_p=FLOATS,
            min_p=FLOATS,
            presence_penalty=FLOATS,
            frequency_penalty=FLOATS,
            stop=st.lists(st.text(), max_size=20).map(tuple),
        ),
        tenant=st.text(max_size=3),
        priority=NUMBERS,
        weight=FLOATS,
        factors=st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
        key=st.none() | st.text(max_size=3),
        deadline_at=NUMBERS,
        expires_at=NUMBERS,
    ),
    st.none() | st.just("mine"),
)
def test_every_task_is_taken_or_refused_with_a_sentence(task: TaskSpec, tenant: str | None) -> None:
    try:
        taken = check_task(task, tenant, QUEUES)
    except InvalidRequest:
        return
    else:
        assert 0 <= priority_of(taken) <= 9
        assert all(
            at is None or 0 <= at <= TIME_MS_MAX for at in (taken.deadline_at, taken.expires_at)
        )


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (Edit(1, ("a",)), "say what to change"),
        (Edit(1, (), 3), "at least one task"),
        (Edit(1, ("a",), 10), "priority 10"),
        (Edit(1, ("a",), deadline_at=-1), "deadline_at -1"),
        (Edit(1, ("a",), deadline_at=5, no_deadline=True), "at once"),
        (Edit(1, ("a", "b"), 3, version=5), "name one"),
    ],
)
def test_an_edit_that_can_not_be_meant_is_refused(edit: Edit, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        edit_of(edit, edit.ids, None, None)
