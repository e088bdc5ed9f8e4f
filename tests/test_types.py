"""The nouns: states and their other names, and JSON as the contract has it."""

from __future__ import annotations

import json

import msgspec
import pytest

from autoglm.types import Event, Task, TaskState, Usage, to_json


@pytest.mark.parametrize("state", TaskState)
def test_every_state_is_known_by_its_name_in_any_case(state: TaskState) -> None:
    assert TaskState.parse(state.value) is state
    assert TaskState.parse(f" {state.value.upper()} ") is state


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("queued", TaskState.PENDING),
        ("processing", TaskState.RUNNING),
        ("success", TaskState.SUCCEEDED),
        ("failed", TaskState.DEAD),
        ("canceled", TaskState.CANCELLED),
    ],
)
def test_names_of_other_systems_are_understood(name: str, state: TaskState) -> None:
    assert TaskState.parse(name) is state


def test_an_unknown_state_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'done'.*pending.*expired"):
        TaskState.parse("done")


def test_four_states_are_ends() -> None:
    ended = {state for state in TaskState if state.ended}
    assert ended == {"succeeded", "dead", "cancelled", "expired"}


def test_an_event_is_printed_with_the_names_of_the_contract() -> None:
    event = Event(1, "id", "default", None, TaskState.PENDING, 0, 5, 7)
    line = json.loads(to_json(event))
    assert list(line) == ["seq", "task", "tenant", "from", "to", "attempt", "at", "cost"]
    signed = msgspec.structs.replace(event, by="root")
    assert list(msgspec.json.decode(to_json(signed))) == [*line, "by"]
    assert (line["from"], line["to"]) == (None, "pending")
    assert msgspec.json.decode(to_json(event), type=Event) == event


def test_a_task_survives_json() -> None:
    task = Task("id", TaskState.RETRYING, attempt=2)
    assert msgspec.json.decode(to_json(task), type=Task) == task


def test_total_tokens_are_prompt_and_answer() -> None:
    assert Usage(10, 3, 4).total_tokens == 13
