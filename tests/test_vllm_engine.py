"""The real engine with the tiny model: what it answers, refuses, and how it ends."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
import pytest_asyncio
import zmq

from autoglm.types import Message, Sampling
from model.engine import EngineDead, EngineRequest, EngineUnavailable, RequestFailed
from model.vllm import VllmEngine, plain_chat
from runtime.config import EngineConfig
from runtime.partial import Partial

real = [
    pytest.mark.vllm,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # of vLLM's libraries about each other
]


def real_engine(test: Any) -> Any:
    for mark in real:
        test = mark(test)
    return test


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[VllmEngine]:
    made = VllmEngine(EngineConfig(model="tiny", max_num_seqs=8, kv_cache_gib=0.1))
    await made.load()
    yield made
    made.close()
    for each in gc.get_objects():
        if type(each) is zmq.Context:  # vLLM closes its sockets, but not their context
            each.destroy(linger=0)


def ask(text: str, *, stream: bool = False, **sampling: Any) -> EngineRequest:
    given: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "ignore_eos": True} | sampling
    messages = (Message("user", text),)
    return EngineRequest("t", 1, messages, sampling=Sampling(**given), stream=stream)


async def test_a_missing_model_is_named() -> None:
    with pytest.raises(EngineUnavailable, match="no folder /nowhere/model"):
        await VllmEngine(EngineConfig(model="/nowhere/model")).load()


async def test_without_vllm_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineUnavailable, match=r"autoglm\[gpu\].*make setup"):
        await VllmEngine(EngineConfig(model=str(tmp_path))).load()


@pytest.mark.vllm
@pytest.mark.filterwarnings("ignore")
async def test_an_engine_that_was_closed_is_dead() -> None:
    engine = VllmEngine(EngineConfig())
    engine.close()
    with pytest.raises(EngineDead):
        await engine.generate(ask("Why?"), None)


def test_a_model_without_a_chat_template_sees_roles_and_texts() -> None:
    messages = (Message("system", "Be brief."), Message("user", "Why?"))
    assert plain_chat(messages) == "system: Be brief.\nuser: Why?\nassistant:"


@real_engine
async def test_greedy_answers_are_the_same_every_time(engine: VllmEngine) -> None:
    first = await engine.generate(ask("How many legs has a spider?"), None)
    again = await engine.generate(ask("How many legs has a spider?"), None)
    assert first.text
    assert first.text == again.text
    assert (first.completion_tokens, first.finish_reason) == (12, "length")
    assert first.prompt_tokens > 10


@real_engine
async def test_streamed_pieces_make_up_the_text(engine: VllmEngine) -> None:
    whole = await engine.generate(ask("Tell me more."), None)
    pieces: list[str] = []
    streamed = await engine.generate(ask("Tell me more.", stream=True), pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == streamed.text == whole.text
    assert streamed.completion_tokens == whole.completion_tokens


@real_engine
async def test_a_raw_prompt_is_completed_as_it_stands(engine: VllmEngine) -> None:
    request = EngineRequest("t", 1, prompt="abc", sampling=Sampling(max_tokens=3, ignore_eos=True))
    completion = await engine.generate(request, None)
    assert completion.completion_tokens == 3
    assert 1 <= completion.prompt_tokens <= 3


@real_engine
async def test_without_a_maximum_the_answer_fills_the_context(engine: VllmEngine) -> None:
    completion = await engine.generate(ask("Go on.", max_tokens=None), None)
    assert completion.finish_reason == "length"
    assert completion.prompt_tokens + completion.completion_tokens == 2048


@real_engine
async def test_a_prompt_that_is_too_long_is_refused_with_both_figures(engine: VllmEngine) -> None:
    with pytest.raises(RequestFailed, match=r"has \d{4,} tokens.*at most 2048") as refused:
        await engine.generate(ask("word " * 2048), None)
    assert (refused.value.code, refused.value.permanent) == ("prompt_too_long", True)


@real_engine
@pytest.mark.parametrize("bad", [{"temperature": -1}, {"top_p": 7.0}, {"max_tokens": 0}])
async def test_a_bad_parameter_fails_the_request_for_good(
    engine: VllmEngine, bad: dict[str, Any]
) -> None:
    with pytest.raises(RequestFailed, match=next(iter(bad))) as refused:
        await engine.generate(ask("Why?", **bad), None)
    assert (refused.value.code, refused.value.permanent) == ("invalid_request", True)


@real_engine
async def test_several_answers_to_one_prompt_differ_and_come_back_with_their_seed(
    engine: VllmEngine,
) -> None:
    several = ask("Roll the dice.", n=3, seed=7, temperature=1.0)
    first = await engine.generate(several, None)
    texts = [first.text, *(choice.text for choice in first.others)]
    assert len(set(texts)) == 3
    assert first.completion_tokens == 3 * 12
    again = await engine.generate(several, None)
    assert [again.text, *(choice.text for choice in again.others)] == texts
    other = await engine.generate(ask("Roll the dice.", seed=8, temperature=1.0), None)
    assert other.text == texts[1], "the second of them has the next seed"


@real_engine
async def test_more_answers_than_slots_are_all_given(engine: VllmEngine) -> None:
    completion = await engine.generate(ask("Roll the dice.", n=20, temperature=1.0), None)
    assert len(completion.others) == 19
    assert completion.completion_tokens == 20 * 12


@real_engine
@pytest.mark.parametrize("stream", [False, True])
async def test_every_token_has_its_log_probability(engine: VllmEngine, stream: bool) -> None:
    pieces: list[str] = []
    asked = ask("How likely?", logprobs=3, stream=stream)
    completion = await engine.generate(asked, pieces.append if stream else None)
    logprobs = completion.logprobs
    assert logprobs is not None
    assert len(logprobs) == 12
    for token in logprobs:
        assert len(token.top) == 3
        assert token.token == token.top[0].token, "greedy: the likeliest was chosen"
        assert 0 >= token.top[0].logprob >= token.top[1].logprob >= token.top[2].logprob
    bare = await engine.generate(ask("How likely?", logprobs=0), None)
    assert bare.logprobs is not None
    assert [token.top for token in bare.logprobs] == [()] * 12
    assert [token.logprob for token in bare.logprobs] == pytest.approx(
        [token.logprob for token in logprobs], abs=0.01
    )
    assert (await engine.generate(ask("How likely?"), None)).logprobs is None


@real_engine
async def test_a_stop_text_ends_the_answer_before_it(engine: VllmEngine) -> None:
    whole = (await engine.generate(ask("Stop."), None)).text
    stop = whole[4:6]
    completion = await engine.generate(ask("Stop.", stop=(stop,)), None)
    assert completion.finish_reason == "stop"
    assert completion.text == whole[: whole.index(stop)]


SCHEMA = """{"type": "object", "required": ["side", "legs"], "properties": {
    "side": {"enum": ["left", "right"]},
    "legs": {"type": "integer", "minimum": 1, "maximum": 8}}}"""
BAD_SCHEMAS = ('{"type": "nothing"}', '{"$ref": "#/$defs/missing"}', '{"minimum": "a"}')


@real_engine
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_follows_its_schema(engine: VllmEngine, stream: bool) -> None:
    asked = ask("Which?", json_schema=SCHEMA, max_tokens=200, ignore_eos=False, stream=stream)
    pieces: list[str] = []
    completion = await engine.generate(asked, pieces.append if stream else None)
    assert completion.finish_reason == "stop"
    value = json.loads(completion.text)
    assert set(value) == {"side", "legs"}
    assert value["side"] in {"left", "right"}
    assert 1 <= value["legs"] <= 8
    assert not stream or "".join(pieces) == completion.text


@real_engine
@pytest.mark.parametrize(
    "bad", ['{"type": "nothing"}', '{"$ref": "#/$defs/missing"}', '{"minimum": "a"}']
)
async def test_a_schema_that_can_t_be_followed_fails_the_request_for_good(
    engine: VllmEngine, bad: str
) -> None:
    with pytest.raises(RequestFailed) as refused:
        await engine.generate(ask("Which?", json_schema=bad, max_tokens=50, ignore_eos=False), None)
    assert (refused.value.code, refused.value.permanent) == ("invalid_request", True)
    assert (await engine.generate(ask("Why?"), None)).text, "the engine lives on"


@real_engine
async def test_a_cancelled_request_is_aborted_in_the_engine(engine: VllmEngine) -> None:
    begun = anyio.Event()
    async with anyio.create_task_group() as group:

        async def cut_short() -> None:
            await engine.generate(
                ask("Go on.", stream=True, max_tokens=None), lambda _: begun.set()
            )

        group.start_soon(cut_short)
        await begun.wait()
        assert engine.reading().running == 1
        assert 0 < engine.reading().kv_usage < 1
        group.cancel_scope.cancel()
    made = engine.reading().completion_tokens
    await engine.generate(ask("Why?"), None)
    assert engine.reading().running == 0
    assert engine.reading().kv_usage == 0
    assert engine.reading().completion_tokens < made + 2000


def children() -> list[int]:
    """Our child processes that are vLLM's."""
    ours = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for file in ours for pid in file.read_text().split()]
    return [pid for pid in pids if b"VLLM" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def begun(engine: VllmEngine, request: EngineRequest, tokens: int) -> Partial:
    """What there is of its answer after so many tokens or a few more, where it is ended then."""
    found: list[Partial | None] = []
    there = anyio.Event()

    def on_text(_: str) -> None:
        if engine.made(request.id) >= tokens:
            there.set()

    async with anyio.create_task_group() as group:
        group.start_soon(engine.generate, request, on_text)
        await there.wait()
        found.append(engine.partial(request.id))
        group.cancel_scope.cancel()
    assert found[0] is not None
    return found[0]


@real_engine
async def test_a_greedy_answer_that_is_continued_is_the_undisturbed_one(engine: VllmEngine) -> None:
    request = ask("Tell me a long story.", max_tokens=96, stream=True)
    whole = await engine.generate(request, None)
    partial = await begun(engine, request, 40)
    assert len(partial.tokens) < 96
    pieces: list[str] = []
    continued = msgspec.structs.replace(request, continued=partial)
    rest = await engine.generate(continued, pieces.append)
    assert rest.text == "".join(pieces) == whole.text
    assert rest.before == len(partial.tokens)
    assert (rest.prompt_tokens, rest.completion_tokens, rest.finish_reason) == (
        *(whole.prompt_tokens, whole.completion_tokens, whole.finish_reason),
    )


@real_engine
async def test_a_stop_string_is_found_across_the_break(engine: VllmEngine) -> None:
    plain = ask("Tell me a long story.", max_tokens=96)
    text = (await engine.generate(plain, None)).text
    middle = len(text) // 2
    request = ask("Tell me a long story.", max_tokens=96, stop=(text[middle : middle + 8],))
    whole = await engine.generate(request, None)
    assert whole.finish_reason == "stop"
    assert whole.text == text[: text.index(text[middle : middle + 8])]
    partial = await begun(engine, plain, whole.completion_tokens - 1)
    for before in range(max(1, whole.completion_tokens - 4), whole.completion_tokens):
        begin = msgspec.structs.replace(partial, tokens=partial.tokens[:before])
        rest = await engine.generate(msgspec.structs.replace(request, continued=begin), None)
        assert msgspec.structs.replace(rest, before=0, cached_tokens=0) == (
            msgspec.structs.replace(whole, cached_tokens=0)
        )


@real_engine
async def test_what_depends_on_the_tokens_so_far_begins_anew(engine: VllmEngine) -> None:
    request = ask("Why?", frequency_penalty=1.0)
    whole = await engine.generate(request, None)
    begin = Partial((1, 2, 3))
    rest = await engine.generate(msgspec.structs.replace(request, continued=begin), None)
    assert (rest.text, rest.before) == (whole.text, 0)


@real_engine
async def test_the_death_of_vllm_is_the_death_of_the_engine(engine: VllmEngine) -> None:
    """The last of this file: the engine that all share is gone."""
    begun = anyio.Event()
    deaths: list[EngineDead] = []

    async def run_into_it() -> None:
        try:
            request = ask("Go on.", stream=True, max_tokens=None)
            await engine.generate(request, lambda _: begun.set())
        except EngineDead as death:
            deaths.append(death)

    async with anyio.create_task_group() as group:
        group.start_soon(run_into_it)
        await begun.wait()
        for child in children():
            os.kill(child, signal.SIGKILL)
    assert len(deaths) == 1
    with pytest.raises(EngineDead):
        await engine.generate(ask("Why?"), None)
