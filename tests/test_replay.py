"""The benchmark of scheduling replays what the real parts would do."""

from __future__ import annotations

from pathlib import Path
from random import Random

import anyio
import anyio.lowlevel
import pytest

from actors.policy.preempt import for_urgent
from actors.policy.staging import Staging
from autoglm.types import Sampling
from bench.orders import ORDERS, Request, read_trace
from bench.replay import Machine, Measured, Replay, replayed, scaled
from model.engine import EngineRequest
from model.simulated import SimulatedEngine, Timing
from runtime.config import BatchConfig, EngineConfig, SimulatedConfig
from tests.test_simulated import JumpingClock

STEP_S = 0.01
ON_THE_WAY = 5
"""Turns of the event loop between an answer and the request that takes its slot."""
MACHINE = Machine(4, Timing(STEP_S, 0.0001))
DATA = Path(__file__).parent.parent / "bench" / "data"


def some(count: int, seed: int, priority: int = 5) -> list[Request]:
    """Enough of them at once to fill the slots, with pauses in which the engine runs empty."""
    draw = Random(seed)
    arrivals = sorted(draw.uniform(0, count * 0.03) for _ in range(count))
    return [
        Request(at, draw.randint(1, 300), draw.randint(1, 30), draw.choice("ab"), priority)
        for at in arrivals
    ]


async def served(requests: list[Request]) -> list[float]:
    """When the simulated engine has answered each of them, fed by a batcher that knows of a free
    slot a little after the engine does.
    """
    clock = JumpingClock()
    simulated = SimulatedConfig(step_ms=STEP_S * 1000, prefill_tok_s=10_000)
    config = EngineConfig(
        kind="simulated", max_num_seqs=MACHINE.slots, max_model_len=10_000, simulated=simulated
    )
    engine, ends = SimulatedEngine(config, clock), [0.0] * len(requests)
    slots = anyio.Semaphore(MACHINE.slots)

    async def one(number: int, request: Request) -> None:
        await clock.sleep(request.arrival_s)
        async with slots:
            sampling = Sampling(max_tokens=request.output, ignore_eos=True)
            prompt = " ".join(["w"] * request.prompt)
            await engine.generate(EngineRequest(str(number), 1, (), prompt, sampling), None)
            ends[number] = clock.now
            for _ in range(ON_THE_WAY):
                await anyio.lowlevel.checkpoint()

    async def everyone() -> None:
        async with anyio.create_task_group() as group:
            for number, request in enumerate(requests):
                group.start_soon(one, number, request)

    await clock.run(everyone())
    return ends


@pytest.mark.parametrize("seed", range(5))
async def test_answers_come_when_the_simulated_engine_gives_them(seed: int) -> None:
    requests = some(60, seed)
    staging = Staging(BatchConfig(window_ms=0))
    done = Replay(requests, ORDERS["fifo"](), MACHINE, staging=staging).run()
    assert done.finished_s == pytest.approx(await served(requests))


@pytest.mark.parametrize("order", list(ORDERS))
def test_every_order_serves_everybody_once_after_they_came(order: str) -> None:
    requests = some(300, 1)
    done = replayed(requests, MACHINE, order)
    for each, start, end in zip(requests, done.started_s, done.finished_s, strict=True):
        assert each.arrival_s <= start
        assert start + each.output * STEP_S <= end + 1e-9


def test_a_stopped_generation_pays_its_prefill_again_and_keeps_its_tokens() -> None:
    long = [Request(0.0, 10, 100, "file", 5)] * MACHINE.slots
    requests = [*long, Request(0.5, 10, 5, "urgent", 0)]
    done = replayed(requests, MACHINE, "priority", stop=for_urgent, at_once=True)
    assert done.stops == 1
    assert done.prefilled_again > 10 + 40
    assert done.finished_s[-1] < 0.6
    repeated_s = (done.prefilled_again + 50) * 0.0001
    assert max(done.finished_s) == pytest.approx(105 * STEP_S + repeated_s, abs=3 * STEP_S)


def test_what_is_slotted_for_urgent_tasks_is_kept_from_others() -> None:
    long = [Request(0.0, 10, 100, "file", 5)] * MACHINE.slots
    requests = [*long, Request(0.5, 10, 5, "urgent", 0)]
    done = replayed(requests, MACHINE, "priority", reserve=1, at_once=True)
    assert sorted(done.started_s)[:3] == [0.0, 0.0, 0.0]
    assert done.started_s[-1] < 0.52


def test_short_kinds_pass_long_ones_once_their_lengths_are_known() -> None:
    draw = Random(3)
    pairs = [
        Request(draw.uniform(0, 60), 20, 200 if kind == "long" else 5, kind)
        for kind in ("long", "short")
        for _ in range(1000)
    ]
    at_load = scaled(sorted(pairs), MACHINE, 0.95)
    fifo, ours = (
        Measured.of(at_load, replayed(at_load, MACHINE, each)) for each in ("fifo", "mlfq")
    )
    assert ours.mean < 0.5 * fifo.mean
    assert ours.longest_wait_s < 1.5 * fifo.longest_wait_s


@pytest.mark.parametrize("name", ["azure_conv_2023_sample", "azure_code_2023_sample"])
def test_the_samples_are_traces(name: str) -> None:
    requests = read_trace(DATA / f"{name}.csv")
    assert len(requests) > 1000
    assert requests == sorted(requests)
    assert {each.kind for each in requests} == {name}
