"""The engine host's own end: what it is told about a request holds, however soon it is told."""

from __future__ import annotations

import anyio
import pytest

from autoglm.types import Message, Sampling
from model.engine import GIVEN_UP, EngineRequest
from model.frames import (
    Abort,
    Finished,
    FromHost,
    Generate,
    Load,
    Stop,
    ToHost,
    decode_from_host,
    encode,
)
from model.host import EngineHost
from model.simulated import SimulatedEngine
from runtime.config import EngineConfig, SimulatedConfig
from tests.simulation.loop import VirtualClock, run_virtually
from tests.simulation.net import MemoryChannel, pair
from tests.simulation.world import Universe

CONFIG = EngineConfig(kind="simulated", simulated=SimulatedConfig(load_s=0, step_ms=10))


def ask(id: str) -> EngineRequest:
    sampling = Sampling(max_tokens=100, ignore_eos=True)
    return EngineRequest(id, 1, (Message("user", "hello"),), sampling=sampling)


def finished_after(*together: ToHost) -> dict[str, str | None]:
    """The error, if any, of each request that a host ends when it gets all these at once."""
    universe = Universe(0)
    ended: dict[str, str | None] = {}

    def note(message: FromHost) -> None:
        if isinstance(message, Finished):
            for each in message.completions:
                ended[each.id] = each.error.code if each.error else None

    async def main(clock: VirtualClock) -> None:
        near, far = pair(universe, "host", 0.0)
        channel, host = MemoryChannel(near), EngineHost(MemoryChannel(far), clock, SimulatedEngine)

        async def hear() -> None:
            while True:
                for body in await channel.receive():
                    note(decode_from_host.decode(body))

        async with anyio.create_task_group() as group:
            group.start_soon(host.serve)
            group.start_soon(hear)
            await channel.send(encode(Load(CONFIG)))
            await clock.sleep(0.1)
            for message in together:
                await channel.send(encode(message))
            await clock.sleep(30)
            group.cancel_scope.cancel()

    run_virtually(main, universe.loop)
    return ended


@pytest.mark.parametrize(
    ("word", "ended"),
    [(Stop(("a",)), {"a": GIVEN_UP, "b": None}), (Abort(("a",)), {"b": None})],
    ids=["stop", "abort"],
)
def test_a_request_is_ended_by_what_comes_in_one_read_with_it(
    word: ToHost, ended: dict[str, str | None]
) -> None:
    assert finished_after(Generate((ask("a"), ask("b"))), word) == ended
