"""docs/protocol.md tells what the code speaks."""

from __future__ import annotations

import re

import pytest

from autoglm import errors, wire
from autoglm.types import TaskState
from tests.protocol_page import BEGIN, END, PAGE, rendered, tags

TEXT = PAGE.read_text()
BY_HAND = TEXT.partition(BEGIN)[0]
RETURNED_BY_THE_CLIENT_ALONE = {"usage", "config", "not_running", "invalid_answer"}


def test_the_reference_is_that_of_the_messages() -> None:
    current = f"{BEGIN}\n{rendered()}\n{END}" in TEXT
    assert current, "write it anew: python -P -m tests.protocol_page"


def test_every_link_within_the_page_leads_to_a_heading_of_it() -> None:
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]*)\)", TEXT)) <= anchors


def test_no_two_headings_are_the_same() -> None:
    headings = [heading.lower() for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)]
    assert len(headings) == len(set(headings))


def test_every_request_and_reply_has_its_place_in_the_table_of_who_answers_whom() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+) \| (.*) \|$", BY_HAND, re.MULTILINE)
    asked = {name for left, _ in rows for name in re.findall(r"`(\w+)`", left)}
    answering = {name for _, right in rows for name in re.findall(r"`(\w+)`", right)}
    assert asked >= set(tags(wire.Request))
    assert answering >= set(tags(wire.Reply)) - {"error"}


@pytest.mark.parametrize("state", TaskState)
def test_every_state_is_named(state: TaskState) -> None:
    assert f"`{state.value}`" in BY_HAND


def codes(kind: type[errors.AutoGLMError]) -> set[str]:
    return {kind.code}.union(*(codes(child) for child in kind.__subclasses__()))


def test_every_code_that_a_server_sends_is_explained() -> None:
    sent = codes(errors.ServerError) | codes(errors.UsageError) | {errors.AutoGLMError.code}
    for code in sent - RETURNED_BY_THE_CLIENT_ALONE:
        assert f"\n| `{code}` |" in BY_HAND, code


def test_the_limits_are_those_of_the_code() -> None:
    assert wire.FRAME_BYTES_MAX == 32 * 2**20
    assert f"{wire.TASKS_PER_SUBMIT_MAX:,} tasks" in BY_HAND
    assert f"`protocol` in `hello` and `welcome` is {wire.PROTOCOL_VERSION}." in BY_HAND
