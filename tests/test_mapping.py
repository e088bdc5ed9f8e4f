"""What `map` does with what is no prompt: it says so in its place, and comes to an end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
import pytest

from autoglm import Client, InvalidRequest
from autoglm.mapping import Mapping, Outcome
from autoglm.session import Session
from autoglm.types import TaskSpec

TIMEOUT_S = 30
NOWHERE = Client("nowhere.sock")
"""Never connected: none of these prompts gets as far as a server."""


async def outcomes(mapping: Mapping, prompts: Iterable[Any]) -> list[Outcome]:
    found: list[Outcome] = []
    with anyio.fail_after(TIMEOUT_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mapping.run, prompts)
            try:
                while (outcome := await mapping.take()) is not None:
                    found.append(outcome)
            finally:
                mapping.cancel()
    return found


async def test_what_is_no_prompt_is_refused_in_its_place() -> None:
    prompts = [5, None, float("nan"), TaskSpec("an-id", ()), {"role": "user"}]
    for ordered in (True, False):
        found = await outcomes(NOWHERE.mapping(None, ordered, 2, {}), prompts)
        assert [type(each) for each in found] == [InvalidRequest] * len(prompts)
        assert [str(each).split()[-1] for each in found][:3] == ["5", "None", "nan"]


async def test_a_prompt_that_can_not_be_made_into_a_task_ends_the_map() -> None:
    def to_spec(prompt: Any) -> TaskSpec:
        raise (InvalidRequest if prompt == "refused" else LookupError)(prompt)

    session = Session(NOWHERE.session.socket, "default")
    mapping = Mapping(session, to_spec, lambda result: result, ordered=True, in_flight=4)
    with pytest.raises(ExceptionGroup) as ended:
        await outcomes(mapping, ["refused", "odd"])
    assert ended.group_contains(LookupError, match="odd")


@pytest.mark.parametrize("prompts", [None, 5, "hello", b"hello"])
async def test_a_map_of_what_is_not_several_prompts_is_refused(prompts: Any) -> None:
    with pytest.raises(InvalidRequest, match="map takes several prompts"):
        await anext(aiter(NOWHERE.map(prompts)))
    with pytest.raises(InvalidRequest, match="submit_many takes several prompts"):
        await NOWHERE.submit_many(prompts)
