"""The simulated engine on a clock that jumps: times come out exact, and nothing waits."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio
import pytest

from autoglm.types import Message, Sampling
from model.engine import Completion, EngineRequest, RequestFailed
from model.simulated import SimulatedEngine
from runtime.config import EngineConfig, SimulatedConfig

T = TypeVar("T")


class JumpingClock:
    """When everybody sleeps, time jumps to the first who is to wake."""

    def __init__(self) -> None:
        self.now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        sleeper = (self.now + seconds, len(self._sleepers), woken)
        self._sleepers.append(sleeper)
        try:
            await woken.wait()
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """`work` to its end, or RuntimeError when it waits for nothing that time brings."""
        task = asyncio.ensure_future(work)
        while not task.done():
            for _ in range(20):  # whoever can still act does
                await asyncio.sleep(0)
            if not task.done():
                if not self._sleepers:
                    task.cancel()
                    raise RuntimeError("everybody waits")
                first = min(self._sleepers)
                self._sleepers.remove(first)
                self.now = max(self.now, first[0])
                first[2].set()
        return task.result()


def engine(
    clock: JumpingClock,
    *,
    slots: int = 4,
    context: int | None = None,
    faults: bool = True,
    step_ms: float = 10,
    prefill_tok_s: float = 0,
    kill: Callable[[], None] = lambda: None,
) -> SimulatedEngine:
    simulated = SimulatedConfig(
        load_s=0.2, step_ms=step_ms, prefill_tok_s=prefill_tok_s, output_tokens=16
    )
    config = EngineConfig(
        kind="simulated",
        max_num_seqs=slots,
        max_model_len=context,
        faults=faults,
        simulated=simulated,
    )
    return SimulatedEngine(config, clock, kill)


def ask(text: str, id: str = "t", **sampling: Any) -> EngineRequest:
    return EngineRequest(id, 1, (Message("user", text),), sampling=Sampling(**sampling))


async def ends(
    simulated: SimulatedEngine,
    clock: JumpingClock,
    requests: list[EngineRequest],
) -> dict[str, float]:
    """Seconds at which each request was answered, all begun together."""
    at: dict[str, float] = {}

    async def one(request: EngineRequest) -> None:
        await simulated.generate(request, None)
        at[request.id] = round(clock.now, 6)

    async def everything() -> None:
        async with anyio.create_task_group() as group:
            for request in requests:
                group.start_soon(one, request)

    await clock.run(everything())
    return at


async def test_loading_takes_the_configured_time() -> None:
    clock = JumpingClock()
    info = await clock.run(engine(clock, slots=7, context=100).load())
    assert clock.now == 0.2
    assert (info.slots, info.max_model_len) == (7, 100)


async def test_simulated_answer_begins_with_the_hash_of_the_last_user_message() -> None:
    clock = JumpingClock()
    question = "Wie heißt die Hauptstadt? [[tokens:3]]"
    messages = (Message("user", "first"), Message("assistant", "a"), Message("user", question))
    request = EngineRequest("t", 1, (*messages, Message("assistant", "well")))
    completion = await clock.run(engine(clock).generate(request, None))
    assert completion.text.split()[0] == hashlib.sha256(question.encode()).hexdigest()[:16]
    assert len(completion.text.split()) == completion.completion_tokens == 3


async def test_a_prompt_without_messages_is_hashed_as_it_stands() -> None:
    clock = JumpingClock()
    completion = await clock.run(engine(clock).generate(EngineRequest("t", 1, prompt="ab"), None))
    assert completion.text.startswith(hashlib.sha256(b"ab").hexdigest()[:16])


async def test_all_running_requests_share_the_steps() -> None:
    clock = JumpingClock()
    at = await ends(engine(clock), clock, [ask("x", str(n)) for n in range(4)])
    assert set(at.values()) == {0.16}


async def test_a_request_beyond_the_slots_waits_for_one() -> None:
    clock = JumpingClock()
    at = await ends(engine(clock), clock, [ask("x", str(n)) for n in range(5)])
    assert at.pop("4") == 0.32
    assert set(at.values()) == {0.16}


async def test_prefill_makes_the_step_longer_by_tokens_over_rate() -> None:
    clock = JumpingClock()
    simulated = engine(clock, prefill_tok_s=1000)
    assert await ends(simulated, clock, [ask("one two three four five")]) == {"t": 0.165}


@pytest.mark.parametrize(
    ("text", "sampling", "tokens", "reason"),
    [
        ("x", {}, 16, "stop"),
        ("x [[tokens:40]]", {}, 40, "stop"),
        ("x [[tokens:40]]", {"max_tokens": 8}, 8, "length"),
        ("x [[tokens:8]]", {"max_tokens": 8}, 8, "stop"),
        ("x", {"max_tokens": 30, "ignore_eos": True}, 30, "length"),
        ("x", {"min_tokens": 20}, 20, "stop"),
        ("x y [[tokens:500]]", {}, 97, "length"),
    ],
)
async def test_the_answer_ends_where_the_request_or_the_context_says(
    text: str, sampling: dict[str, Any], tokens: int, reason: str
) -> None:
    clock = JumpingClock()
    completion = await clock.run(engine(clock, context=100).generate(ask(text, **sampling), None))
    assert (completion.completion_tokens, completion.finish_reason) == (tokens, reason)


async def test_pieces_come_step_by_step_and_make_up_the_text() -> None:
    clock = JumpingClock()
    pieces: list[tuple[float, str]] = []
    completion = await clock.run(
        engine(clock).generate(
            ask("x [[tokens:3]]"), lambda text: pieces.append((round(clock.now, 6), text))
        )
    )
    assert [at for at, _ in pieces] == [0.01, 0.02, 0.03]
    assert "".join(text for _, text in pieces) == completion.text


async def test_a_prompt_that_leaves_no_room_is_refused_with_both_figures() -> None:
    clock = JumpingClock()
    with pytest.raises(RequestFailed, match=r"12 tokens.*at most 10") as refused:
        await clock.run(engine(clock, context=10).generate(ask("w " * 12), None))
    assert (refused.value.code, refused.value.permanent) == ("prompt_too_long", True)


@pytest.mark.parametrize(
    ("mark", "code", "permanent"),
    [("[[error]]", "engine_error", False), ("[[invalid]]", "invalid_request", True)],
)
async def test_a_fault_mark_fails_its_request_alone(mark: str, code: str, permanent: bool) -> None:
    clock = JumpingClock()
    simulated = engine(clock, slots=1)
    with pytest.raises(RequestFailed) as failed:
        await clock.run(simulated.generate(ask(mark), None))
    assert (failed.value.code, failed.value.permanent) == (code, permanent)
    assert (await clock.run(simulated.generate(ask("next"), None))).finish_reason == "stop"


@pytest.mark.parametrize("mark", ["crash", "hang", "error", "invalid", "slow:60"])
async def test_fault_marks_are_plain_text_unless_faults_are_on(mark: str) -> None:
    clock = JumpingClock()
    simulated = engine(clock, faults=False)
    await clock.run(simulated.generate(ask(f"[[{mark}]]"), None))
    assert round(clock.now, 6) == 0.16


async def test_slow_delays_the_first_token_and_nobody_else() -> None:
    clock = JumpingClock()
    at = await ends(engine(clock), clock, [ask("[[slow:2.5]]", "slow"), ask("x", "other")])
    assert at == {"other": 0.16, "slow": 2.66}


async def test_crash_kills_the_process_when_the_request_is_admitted() -> None:
    clock = JumpingClock()
    killed: list[float] = []
    simulated = engine(clock, slots=1, kill=lambda: killed.append(round(clock.now, 6)))
    with pytest.raises(RuntimeError, match="everybody waits"):
        await ends(simulated, clock, [ask("x", "first"), ask("[[crash]]", "second")])
    assert killed == [0.16]


async def test_hang_stops_the_progress_of_all() -> None:
    clock = JumpingClock()
    simulated = engine(clock)
    with pytest.raises(RuntimeError, match="everybody waits"):
        await ends(simulated, clock, [ask("x", "first"), ask("[[hang]]", "second")])
    assert simulated.reading().completion_tokens == 0


async def test_a_cancelled_driver_hands_the_steps_over_in_time() -> None:
    clock = JumpingClock()
    simulated = engine(clock)
    answered: list[Completion] = []

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            cut = anyio.CancelScope()

            async def first() -> None:
                with cut:
                    await simulated.generate(ask("[[tokens:50]]", "first"), None)

            async def second() -> None:
                answered.append(await simulated.generate(ask("x", "second"), None))

            group.start_soon(first)
            group.start_soon(second)
            await clock.sleep(0.035)
            cut.cancel()

    await clock.run(scenario())
    assert round(clock.now, 6) == 0.16
    assert answered[0].id == "second"
    assert simulated.reading().running == 0


async def test_the_reading_counts_running_waiting_and_tokens() -> None:
    clock = JumpingClock()
    simulated = engine(clock, slots=2, context=100)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(simulated.generate, ask("three words here", str(number)), None)
            await clock.sleep(0.045)
            reading = simulated.reading()
            assert (reading.running, reading.waiting) == (2, 3)
            assert (reading.prompt_tokens, reading.completion_tokens) == (6, 8)
            assert reading.kv_usage == pytest.approx((3 + 4) / 100)

    await clock.run(scenario())
    assert simulated.reading().completion_tokens == 5 * 16


async def test_without_delays_an_answer_takes_no_turn_of_the_loop() -> None:
    simulated = engine(JumpingClock(), step_ms=0)
    generation = simulated.generate(ask("x [[tokens:2000]]"), None)
    with pytest.raises(StopIteration) as ended:
        generation.send(None)
    assert ended.value.value.completion_tokens == 2000


@pytest.mark.parametrize(
    ("sampling", "text", "tokens"),
    [
        ({"stop": ("goes",)}, " so it ", 4),
        ({"stop": ("on word", "s o")}, " so it goe", 5),
        ({"stop": (" so", "it")}, "", 2),
        ({"stop": ("2cf2",)}, None, 1),
        ({"stop": ("so",), "min_tokens": 3}, " so it goes on word by word and ", 10),
        ({"stop": ("nowhere",)}, " so it goes on word by word and so it goes on word by word", 16),
        ({"stop": ("goes",), "max_tokens": 3}, " so it", 3),
        ({"stop": ("goes",), "max_tokens": 4, "logprobs": 1, "n": 2}, " so it ", 4),
    ],
)
async def test_an_answer_ends_before_its_first_stop_string(
    sampling: dict[str, Any], text: str | None, tokens: int
) -> None:
    request = EngineRequest("t", 1, prompt="hello", sampling=Sampling(**sampling))
    pieces: list[str] = []
    clock = JumpingClock()
    made = await clock.run(engine(clock).generate(request, pieces.append))
    assert made.text == "".join(pieces) == ("" if text is None else f"2cf24dba5fb0a30e{text}")
    assert "" not in pieces
    assert made.completion_tokens == tokens * (request.sampling.n or 1)
    assert made.finish_reason == ("length" if tokens == 3 else "stop")
    for choice in made.others:
        assert (choice.text, choice.finish_reason) == (made.text, "stop")
