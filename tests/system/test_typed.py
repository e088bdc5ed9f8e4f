"""What is asked of an answer beyond its text, from the client to the store and back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from autoglm import (
    Client,
    InvalidAnswer,
    InvalidRequest,
    Likely,
    Parsed,
    Sampling,
    TaskCancelled,
    TaskDead,
    TaskState,
)
from tests.system.real import INSTANT, Server, fingerprint

pytestmark = pytest.mark.system

SLOW = ("--engine", "simulated", "--set", "engine.simulated.step_ms=5")
ENDLESS = "[[tokens:1000000]]"


class City(msgspec.Struct):
    name: str
    people: int


@dataclasses.dataclass
class Point:
    x: int


async def test_an_answer_of_a_form_comes_as_its_value_however_it_is_asked_for(
    tmp_path: Path,
) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket) as client:
            city = (await client.generate("Bern", response_format=City)).parsed
            assert city == City(fingerprint("Bern"), 0)
            task = await client.submit("Bern", response_format=City)
            assert (await client.result(task, response_format=City)).parsed == city
            assert (await client.result(task.id)).parse(City) == city
            points = client.map(["a", "b"], response_format=Point)
            assert [each.parsed async for each in points] == [Point(0), Point(0)]
            schema = {"type": "object", "properties": {"x": {"type": "boolean"}}}
            said: Parsed[Any] = await client.generate("yes?", response_format=schema)
            assert said.parsed == {"x": True}
            text = "".join([each async for each in client.stream("Bern", response_format=City)])
            assert msgspec.json.decode(text, type=City) == city


async def test_an_answer_cut_short_is_an_error_that_holds_the_text(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket) as client:
            with pytest.raises(InvalidAnswer, match="raise max_tokens") as cut:
                await client.generate("Bern", response_format=City, max_tokens=2)
            assert cut.value.text.startswith('{"name"')
            assert cut.value.task is not None
            assert (await client.get(cut.value.task)).state is TaskState.SUCCEEDED
            mapped = client.map(["a", "b"], response_format=City, max_tokens=1, return_errors=True)
            assert [type(each) async for each in mapped] == [InvalidAnswer, InvalidAnswer]
            with pytest.raises(TaskDead, match="JSON schema"):
                await client.generate("x", sampling=Sampling(json_schema='{"type": "odd"}'))


async def test_several_answers_and_log_probabilities_outlive_the_server(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket) as client:
            result = await client.generate("dice", n=3, logprobs=2, max_tokens=2)
            plain = await client.generate("dice", max_tokens=2)
        server.kill()
        server.start()
        async with Client(server.socket) as client:
            again = await client.result(result.task)
            assert await client.result(plain.task) == plain
    assert again == result
    assert [choice.text for choice in result.choices] == [result.text] * 3
    assert result.usage.completion_tokens == 6
    assert result.logprobs is not None
    assert "".join(token.token for token in result.logprobs) == result.text
    assert result.logprobs[0].top == (Likely(fingerprint("dice"), 0.0),)
    assert (plain.logprobs, plain.others) == (None, ())


async def running(client: Client) -> int:
    return (await client.status()).engines[0].running


async def until_one_runs(client: Client) -> None:
    while not await client.list(state="running"):
        pass


@pytest.mark.parametrize("how", ["cancelled", "timeout"])
async def test_an_interrupted_generate_takes_its_task_out_of_the_engine(
    tmp_path: Path, how: str
) -> None:
    with Server(tmp_path, *SLOW) as server, anyio.fail_after(60):
        async with Client(server.socket) as client:
            if how == "timeout":
                with pytest.raises(TimeoutError):
                    await client.generate(ENDLESS, timeout=0.5)
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(client.generate, ENDLESS)
                    await until_one_runs(client)
                    group.cancel_scope.cancel()
            [task] = await client.list()
            with pytest.raises(TaskCancelled):
                await client.result(task)
            while await running(client):
                pass


async def test_whoever_leaves_a_result_or_a_stream_cancels_nothing(tmp_path: Path) -> None:
    with Server(tmp_path, *SLOW) as server, anyio.fail_after(60):
        async with Client(server.socket) as client:
            task = await client.submit("[[tokens:200]]", stream=True)
            with pytest.raises(TimeoutError):
                await client.result(task, timeout=0.01)
            async for _ in client.follow(task):
                break
            assert (await client.result(task)).usage.completion_tokens == 200


async def test_thousands_are_cancelled_in_one_call_and_one_text_is_not_many(
    tmp_path: Path,
) -> None:
    never = ("--engine", "simulated", "--set", "engine.simulated.load_s=600")
    with Server(tmp_path, *never) as server, anyio.fail_after(120):
        async with Client(server.socket) as client:
            for _ in range(5):
                await client.submit_many([str(number) for number in range(1000)])
            tasks = await client.list()
            done = await client.cancel_many([*tasks, "nowhere"])
            assert (done.count, len(done.tasks), done.unknown) == (5000, 5000, ("nowhere",))
            text: Any = "hello"
            for call in (client.submit_many, client.cancel_many, client.pause):
                with pytest.raises(InvalidRequest, match="not one text"):
                    await call(text)
            with pytest.raises(InvalidRequest, match="not one text"):
                async for _ in client.map(text):
                    pass
            assert len(await client.list()) == 5000
            with pytest.raises(InvalidRequest, match="not a task"):
                await client.get(text.encode())


async def test_the_operator_prunes_what_ended_and_a_tenant_may_not(tmp_path: Path) -> None:
    with Server(tmp_path, *INSTANT) as server:
        async with Client(server.socket) as client:
            await client.generate("one")
            with pytest.raises(InvalidRequest, match="operator"):
                await client.prune("30d")
            async with Client(server.socket, None) as operator:
                assert (await operator.prune("30d")).tasks == 0
                assert (await operator.prune(0)).tasks == 1
            assert await client.list() == []
