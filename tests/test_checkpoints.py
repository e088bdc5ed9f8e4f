"""An answer that was cut short goes on where it was, and is what it would have been."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from actors.policy.rank import ranker
from actors.policy.retry import outcome
from autoglm.types import Message, Sampling, TaskSpec, TaskState
from model.engine import Completion, EngineRequest, continuable
from model.flight import Flight, Lost
from model.simulated import SimulatedEngine
from runtime.config import EngineConfig, RetryConfig, SimulatedConfig
from runtime.partial import Partial
from runtime.store import protocol as p
from runtime.store.checkpointprotocol import Checkpoint, SaveCheckpoints
from runtime.store.queueprotocol import BeginServing
from runtime.store.sqlite import SqliteStore
from tests.simulation.loop import VirtualClock, run_virtually
from tests.simulation.world import Universe

SOME = Partial((0, 1, 2), "text", 7)
MORE = Partial((0, 1, 2, 3, 4), "text more", 7)


# ── the engine ───────────────────────────────────────────────────────────────────────────────────


def ask(tokens: int, **more: Any) -> EngineRequest:
    sampling = Sampling(max_tokens=tokens, ignore_eos=True, **more)
    return EngineRequest("t", 1, (Message("user", "how far is it"),), sampling=sampling)


def engine(clock: VirtualClock, prefill_tok_s: float = 0) -> SimulatedEngine:
    simulated = SimulatedConfig(load_s=0, step_ms=10, prefill_tok_s=prefill_tok_s)
    return SimulatedEngine(EngineConfig(kind="simulated", simulated=simulated), clock)


async def cut_short(it: SimulatedEngine, request: EngineRequest, tokens: int) -> Partial | None:
    """What there is of the answer after so many tokens, where it is ended then."""
    pieces: list[str] = []
    there = anyio.Event()
    found: list[Partial | None] = []

    def on_text(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == tokens:
            there.set()

    async with anyio.create_task_group() as group:
        group.start_soon(it.generate, request, on_text)
        await there.wait()
        found.append(it.partial(request.id))
        group.cancel_scope.cancel()
    return found[0]


@pytest.mark.parametrize("tokens", [1, 2, 7, 63])
def test_a_continued_answer_is_the_undisturbed_one_and_counted_once(tokens: int) -> None:
    async def main(clock: VirtualClock) -> None:
        it, request = engine(clock), ask(64)
        whole = await it.generate(request, None)
        partial = await cut_short(it, request, tokens)
        assert partial is not None
        assert len(partial.tokens) == tokens
        rest = await it.generate(msgspec.structs.replace(request, continued=partial), None)
        assert rest == msgspec.structs.replace(whole, before=tokens)

    run_virtually(main, Universe(0).loop)


def test_pieces_of_a_continued_answer_begin_with_what_there_was() -> None:
    async def main(clock: VirtualClock) -> None:
        it, request = engine(clock), ask(16)
        partial = await cut_short(it, request, 10)
        assert partial is not None
        pieces: list[str] = []
        continued = msgspec.structs.replace(request, continued=partial, stream=True)
        rest = await it.generate(continued, pieces.append)
        assert pieces[0] == partial.text
        assert len(pieces) == 7
        assert "".join(pieces) == rest.text

    run_virtually(main, Universe(0).loop)


def test_prompt_and_tokens_so_far_are_prefilled_again() -> None:
    async def main(clock: VirtualClock) -> None:
        it, request = engine(clock, prefill_tok_s=1000), ask(64)
        partial = await cut_short(it, request, 60)
        assert partial is not None
        began = clock.monotonic()
        await it.generate(msgspec.structs.replace(request, continued=partial), None)
        assert clock.monotonic() - began == pytest.approx(4 * 0.010 + 64 / 1000, abs=0.001)

    run_virtually(main, Universe(0).loop)


@pytest.mark.parametrize(
    ("sampling", "goes_on"),
    [
        (Sampling(), True),
        (Sampling(temperature=0, seed=3), True),
        (Sampling(temperature=0.7, stop=("x",)), True),
        (Sampling(temperature=0.7, seed=3), False),
        (Sampling(presence_penalty=0.1), False),
        (Sampling(frequency_penalty=-0.1), False),
        (Sampling(repetition_penalty=1.0), True),
        (Sampling(repetition_penalty=1.1), False),
    ],
)
def test_seeds_and_penalties_can_not_be_continued(sampling: Sampling, goes_on: bool) -> None:
    assert continuable(sampling) == goes_on


def test_what_can_not_be_continued_begins_anew() -> None:
    async def main(clock: VirtualClock) -> None:
        it, request = engine(clock), ask(8, presence_penalty=1.0)
        async with anyio.create_task_group() as group:
            group.start_soon(it.generate, request, None)
            await anyio.sleep(0.05)
            assert (it.made("t"), it.partial("t")) == (0, None)
            group.cancel_scope.cancel()
        rest = await it.generate(msgspec.structs.replace(request, continued=SOME), None)
        assert (rest.before, rest.completion_tokens) == (0, 8)
        assert not rest.text.startswith(SOME.text)

    run_virtually(main, Universe(0).loop)


# ── what is recorded ─────────────────────────────────────────────────────────────────────────────


def test_the_attempts_of_one_answer_are_charged_for_it_once_together() -> None:
    task = p.ClaimedTask(1, "t", 1, 0, 0, 5, 0, stream=False)
    first = Flight(EngineRequest("t", 1), task)
    first.partial, first.ended = SOME, Lost("killed")
    lost = outcome(first, RetryConfig(), 0)
    assert (lost.state, lost.partial, lost.charged) == (TaskState.PENDING, SOME, False)
    assert lost.usage.total_tokens == 7 + 3
    again = msgspec.structs.replace(task, attempt=2, continued=SOME)
    second = Flight(EngineRequest("t", 2), again)
    second.ended = Completion("t", 2, "x", "stop", prompt_tokens=7, completion_tokens=9, before=3)
    done = outcome(second, RetryConfig(), 0)
    assert done.output is not None
    assert done.output.usage.total_tokens == 7 + 9
    assert lost.usage.total_tokens + done.usage.total_tokens == 7 + 9


# ── the store ────────────────────────────────────────────────────────────────────────────────────


class Bench:
    def __init__(self, store: SqliteStore) -> None:
        self.store = store

    async def write(self, *writes: p.Write) -> Any:
        return (await self.store.commit(writes, 1000)).results[-1]

    async def claim(self) -> p.ClaimedTask:
        (task,) = await self.write(p.ClaimTasks("batcher", (1,)))
        return task

    async def save(self, partial: Partial, attempt: int = 1) -> int:
        return await self.write(SaveCheckpoints((Checkpoint(1, attempt, partial),)))

    async def record(self, state: TaskState, attempt: int = 1, **more: Any) -> int:
        return await self.write(p.RecordOutcomes((p.Outcome(1, attempt, state, **more),)))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = SqliteStore(tmp_path / "queue.sqlite3", ranker("fifo"))
    await store.open()
    bench = Bench(store)
    await bench.write(
        BeginServing("simulated tiny", ()), p.InsertTasks((TaskSpec("t", prompt="?"),))
    )
    assert (await bench.claim()).continued is None
    yield bench
    await store.close()


async def test_the_newest_checkpoint_comes_with_the_next_claim(bench: Bench) -> None:
    assert [await bench.save(SOME), await bench.save(MORE)] == [1, 1]
    await bench.write(p.PutBack(None))
    assert (await bench.claim()).continued == MORE


async def test_what_is_put_back_with_its_answer_so_far_goes_on_from_there(bench: Bench) -> None:
    await bench.record(TaskState.PENDING, partial=MORE)
    assert (await bench.claim()).continued == MORE
    await bench.record(TaskState.PENDING, attempt=2)
    assert (await bench.claim()).continued == MORE


async def test_a_late_checkpoint_of_an_older_attempt_is_passed_over(bench: Bench) -> None:
    await bench.write(p.PutBack(None))
    assert await bench.save(SOME) == 0
    await bench.claim()
    assert await bench.save(SOME) == 0
    await bench.write(p.PutBack(None))
    assert (await bench.claim()).continued is None


async def test_after_a_failure_it_begins_anew(bench: Bench) -> None:
    await bench.save(SOME)
    await bench.record(TaskState.RETRYING, charged=True)
    await bench.write(p.ReleaseDue())
    assert (await bench.claim()).continued is None


async def test_another_model_begins_anew(bench: Bench) -> None:
    await bench.save(SOME)
    await bench.write(p.PutBack(None), BeginServing("simulated tiny", ()))
    assert (await bench.claim()).continued == SOME
    await bench.write(p.PutBack(None), BeginServing("simulated other", ()))
    assert (await bench.claim()).continued is None


async def test_a_cancelled_task_that_ends_leaves_no_checkpoint(bench: Bench) -> None:
    await bench.save(SOME)
    await bench.write(p.CancelTasks(None, ("t",)))
    assert await bench.save(MORE) == 0
    with contextlib.closing(sqlite3.connect(bench.store.path)) as cx:
        assert cx.execute("SELECT count(*) FROM checkpoint").fetchone() == (0,)
