"""The server's end of an engine host: what was given to it comes back, one way or another."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from autoglm.types import ErrorInfo
from model.engine import GIVEN_UP, Completion, EngineInfo, EngineLoad, EngineRequest, Progress
from model.flight import Flight, Lost
from model.frames import (
    Abort,
    Failed,
    Finished,
    FromHost,
    Generate,
    Load,
    Loaded,
    Reading,
    Texts,
    ToHost,
    decode_to_host,
    encode,
)
from model.hosted import HostedEngine
from model.hosts import HostState
from model.vitals import EXCUSES_MAX, PROBE
from runtime.breaker import BreakerOptions
from runtime.channel import Channel
from runtime.config import EngineConfig
from runtime.process import Host
from runtime.supervision import describe
from tests.simulation.loop import VirtualClock, run_virtually
from tests.simulation.net import MemoryChannel, pair
from tests.simulation.world import Universe

CONFIG = EngineConfig(kind="simulated", watchdog_s=10, load_timeout_s=30)


ALIVE = Finished((Completion(PROBE.id, PROBE.attempt, "x", "length", 1, 1),))


class ScriptedHost:
    """A host process played by the test."""

    def __init__(self, near: MemoryChannel, far: MemoryChannel) -> None:
        self.pid = 1
        self.channel: Channel = near
        self.far = far
        self.killed = False
        self.fate_s = 0.0

    async def kill(self) -> None:
        self.killed = True

    async def wait_fate(self) -> str:
        await anyio.sleep(self.fate_s)
        return "SIGKILL: out of memory"

    async def say(self, *messages: FromHost) -> None:
        for message in messages:
            await self.far.send(encode(message))
        await anyio.sleep(0.01)

    async def heard(self) -> list[ToHost]:
        return [decode_to_host.decode(body) for body in await self.far.receive()]


class Stage:
    def __init__(self, universe: Universe) -> None:
        self.clock = universe.clock
        self.hosts: list[ScriptedHost] = []
        self.texts: list[Progress] = []
        self.failure: BaseException | None = None
        self.started = 0
        self._universe = universe

        async def launch() -> Host:
            near, far = pair(universe, f"host {len(self.hosts)}", 0.0)
            self.hosts.append(ScriptedHost(MemoryChannel(near), MemoryChannel(far)))
            return self.hosts[-1]

        self.engine: HostedEngine[str] = HostedEngine(
            "engine", CONFIG, launch, self.clock, self.texts.extend, BreakerOptions()
        )

    @property
    def host(self) -> ScriptedHost:
        return self.hosts[-1]

    async def start(self, group: anyio.abc.TaskGroup, *, loaded: bool = True) -> None:
        async def run() -> None:
            try:
                await self.engine.run(self._on_started)
            except Exception as error:
                self.failure = error

        group.start_soon(run)
        await self.clock.sleep(0.01)
        assert await self.host.heard() == [Load(CONFIG)]
        if loaded:
            await self.host.say(Loaded(EngineInfo("m", slots=2, max_model_len=100)))
            assert await self.host.heard() == [Generate((PROBE,))]
            await self.host.say(ALIVE)

    def _on_started(self) -> None:
        self.started += 1

    def submit(self, *ids: str, trial: int = 0, attempt: int = 1) -> list[Flight[str]]:
        flights = [Flight(EngineRequest(id, attempt), f"task {id}", trial=trial) for id in ids]
        self.engine.submit(flights)
        return flights


def play(scene: Callable[[Stage, anyio.abc.TaskGroup], Coroutine[Any, Any, None]]) -> None:
    universe = Universe(0)

    async def main(_: VirtualClock) -> None:
        async with anyio.create_task_group() as group:
            await scene(Stage(universe), group)
            group.cancel_scope.cancel()

    run_virtually(main, universe.loop)


def test_requests_go_in_one_frame_and_come_back_one_by_one() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        a, b = stage.submit("a", "b")
        assert (stage.engine.free, stage.engine.flying) == (0, 2)
        assert await stage.host.heard() == [Generate((a.request, b.request))]
        done = Completion("b", 1, "text", "stop")
        await stage.host.say(Finished((done,)))
        assert stage.engine.take_ended() == [b]
        assert b.ended == done
        assert stage.engine.flights() == [a, b]
        stage.engine.release(b)
        assert (stage.engine.flights(), stage.engine.free) == ([a], 1)

    play(scene)


def test_an_answer_to_an_older_attempt_is_nobodys() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        (flight,) = stage.submit("a", attempt=2)
        await stage.host.say(Finished((Completion("a", 1, "old"), Completion("z", 1, "what"))))
        assert flight.ended is None
        assert stage.engine.flying == 1

    play(scene)


def test_a_death_ends_what_was_in_it_as_lost() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        a, b = stage.submit("a", "b")
        await stage.host.say(Finished((Completion("a", 1, "text", "stop"),)))
        await stage.host.far.aclose()
        await stage.clock.sleep(0.01)
        assert isinstance(a.ended, Completion)
        assert b.ended == Lost("the host process ended: SIGKILL: out of memory")
        assert stage.engine.take_ended() == [a, b]
        seen = stage.engine.statistics()
        assert (seen.state, seen.flying, stage.engine.free) == (HostState.DOWN, 0, 0)
        assert stage.host.killed

    play(scene)


def test_the_death_of_a_suspect_on_trial_is_excused() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        (flight,) = stage.submit("a", trial=1)
        await stage.host.say(Failed("illegal instruction"))
        assert flight.ended == Lost("illegal instruction")
        assert stage.failure is not None
        assert describe(stage.failure) == "Excused: illegal instruction"

    play(scene)


def test_suspects_excuse_no_engine_that_answers_nothing_any_more() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        async def die() -> str:
            await stage.start(group)
            (flight,) = stage.submit("a", trial=1)
            await stage.host.heard()
            await stage.host.say(Failed("gone"))
            stage.engine.release(flight)
            assert stage.failure is not None
            return describe(stage.failure)

        said = [await die() for _ in range(EXCUSES_MAX + 1)]
        assert said == ["Excused: gone"] * EXCUSES_MAX + ["HostDied: gone"]
        await stage.start(group)
        stage.submit("b")
        await stage.host.say(Finished((Completion("b", 1, "text", "stop"),)), Failed("gone"))
        assert await die() == "Excused: gone"

    play(scene)


def test_an_engine_that_lets_a_request_time_out_and_is_silent_then_is_found_to_hang() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        (flight,) = stage.submit("a")
        await stage.clock.sleep(4)
        stage.engine.time_out(flight, "too long")
        await stage.clock.sleep(CONFIG.watchdog_s - 1)
        assert stage.failure is None
        await stage.clock.sleep(CONFIG.watchdog_s)
        assert stage.failure is not None
        assert "hung" in describe(stage.failure)

    play(scene)


def test_an_engine_that_lets_some_requests_time_out_and_answers_others_does_not_hang() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        for number in range(9):
            (flight,) = stage.submit(f"{number}")
            await stage.clock.sleep(4)
            stage.engine.time_out(flight, "too long")
            await stage.host.say(ALIVE)
            (other,) = stage.submit(f"other {number}")
            await stage.host.say(Finished((Completion(other.request.id, 1, "text", "stop"),)))
        assert stage.failure is None

    play(scene)


def test_the_next_host_starts_with_a_clean_slate() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        (old,) = stage.submit("a")
        await stage.host.heard()
        await stage.host.far.aclose()
        await stage.clock.sleep(0.01)
        await stage.start(group)
        (new,) = stage.submit("a", attempt=2)
        assert isinstance(old.ended, Lost)
        await stage.host.say(Finished((Completion("a", 2, "text", "stop"),)))
        assert isinstance(new.ended, Completion)
        stage.engine.release(old)
        assert stage.engine.flights() == [new]

    play(scene)


def test_a_host_that_makes_no_token_is_ended_by_the_watchdog() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        stage.submit("a")
        for second in range(20):
            await stage.host.say(Reading(EngineLoad(running=1, completion_tokens=second)))
            await stage.clock.sleep(1)
        assert stage.failure is None
        await stage.clock.sleep(12)
        assert stage.failure is not None
        assert "no token for 10 s" in describe(stage.failure)

    play(scene)


def test_an_idle_host_is_never_ended() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        await stage.clock.sleep(1000)
        stage.submit("a")
        await stage.clock.sleep(9)
        assert stage.failure is None

    play(scene)


def test_a_host_that_does_not_load_in_time_is_ended() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group, loaded=False)
        await stage.clock.sleep(31)
        assert stage.failure is not None
        assert "not loaded within 30 s" in describe(stage.failure)

    play(scene)


def test_an_engine_that_can_never_load_escalates() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group, loaded=False)
        await stage.host.say(Failed("vLLM is not installed", permanent=True))
        assert stage.failure is not None
        assert describe(stage.failure) == "Escalation: vLLM is not installed"

    play(scene)


def test_what_is_stopped_is_forgotten_and_frees_its_slot() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        stage.submit("a", "b")
        await stage.host.heard()
        stage.engine.abort(["a", "nothing"])
        assert await stage.host.heard() == [Abort(("a",)), Generate((PROBE,))]
        assert stage.engine.free == 1
        await stage.host.say(Finished((Completion("a", 1, "text"),)))
        assert stage.engine.take_ended() == []

    play(scene)


def test_a_request_that_takes_too_long_ends_as_a_failure() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        (flight,) = stage.submit("a")
        await stage.host.heard()
        stage.engine.time_out(flight, "too long")
        assert isinstance(flight.ended, Completion)
        assert flight.ended.error == ErrorInfo("timeout", "too long")
        assert await stage.host.heard() == [Abort(("a",)), Generate((PROBE,))]
        assert stage.engine.flying == 0

    play(scene)


def test_pieces_of_text_are_passed_on() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        piece = Progress("a", 1, 0, "once")
        await stage.host.say(Texts((piece,)))
        assert stage.texts == [piece]

    play(scene)


def aborted(ended: object) -> bool:
    """Whether it was given up, blaming nobody."""
    return (
        isinstance(ended, Completion) and ended.error is not None and ended.error.code == GIVEN_UP
    )


def test_nothing_is_submitted_before_the_health_probe_is_answered() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group, loaded=False)
        await stage.host.say(Loaded(EngineInfo("m", slots=2, max_model_len=100)))
        assert (stage.engine.free, stage.started) == (0, 0)
        await stage.host.say(ALIVE)
        assert (stage.engine.free, stage.started) == (2, 1)

    play(scene)


def test_an_engine_that_loads_but_makes_no_token_is_ended() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group, loaded=False)
        await stage.host.say(Loaded(EngineInfo("m", slots=2, max_model_len=100)))
        await stage.clock.sleep(11)
        assert stage.failure is not None
        assert "probe got no token within 10 s" in describe(stage.failure)
        assert stage.started == 0

    play(scene)


def test_after_the_cancelling_of_what_hung_it_the_engine_is_ended_and_the_next_is_not_blamed() -> (
    None
):
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        stage.submit("hangs")
        await stage.clock.sleep(1)
        stage.engine.abort(["hangs"])
        await stage.clock.sleep(1)
        (later,) = stage.submit("later", trial=1)
        await stage.host.say(Reading(EngineLoad(prompt_tokens=1)))
        await stage.clock.sleep(12)
        assert stage.failure is not None
        assert describe(stage.failure).startswith("HostHung: hung")
        assert aborted(later.ended)

    play(scene)


def test_an_idle_engine_that_hung_of_what_was_cancelled_is_ended_too() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        stage.submit("hangs")
        stage.engine.abort(["hangs"])
        await stage.clock.sleep(13)
        assert stage.failure is not None

    play(scene)


def test_a_healthy_engine_outlives_cancellations_and_is_answerable_for_what_comes_later() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        stage.submit("a", "b")
        stage.engine.abort(["a"])
        stage.engine.abort(["b"])
        for _ in range(2):  # one for each: the answer to the first proves nothing of the second
            await stage.clock.sleep(0.01)
            assert Generate((PROBE,)) in await stage.host.heard()
            await stage.host.say(ALIVE)
        await stage.clock.sleep(100)
        assert stage.failure is None
        (hangs,) = stage.submit("hangs")
        await stage.clock.sleep(13)
        assert isinstance(hangs.ended, Lost)

    play(scene)


def test_what_the_dead_host_never_got_is_not_blamed() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        (before,) = stage.submit("before")
        await stage.host.heard()
        await stage.host.far.aclose()
        (after,) = stage.submit("after")
        await stage.clock.sleep(0.01)
        assert isinstance(before.ended, Lost)
        assert aborted(after.ended)

    play(scene)


def test_while_a_dead_host_is_being_buried_nothing_can_be_submitted() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        stage.host.fate_s = 1
        await stage.host.far.aclose()
        await stage.clock.sleep(0.5)
        assert stage.failure is None
        assert stage.engine.free == 0

    play(scene)


def test_requests_that_fail_end_the_engine_only_if_its_health_probe_fails_too() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        error = ErrorInfo("engine_error", "out of luck")
        for turn in (1, 2):
            for number in range(10):
                id = f"{turn}-{number}"
                stage.submit(id)
                await stage.host.say(Finished((Completion(id, 1, error=error),)))
            assert [m for m in await stage.host.heard() if m == Generate((PROBE,))]
            if turn == 1:
                await stage.host.say(ALIVE)
                await stage.clock.sleep(100)
                assert stage.failure is None
        await stage.host.say(Finished((Completion(PROBE.id, PROBE.attempt, error=error),)))
        assert stage.failure is not None
        assert describe(stage.failure) == "ProbeFailed: it fails its health probe: out of luck"

    play(scene)


def test_requests_that_can_never_succeed_say_nothing_about_the_engine() -> None:
    async def scene(stage: Stage, group: anyio.abc.TaskGroup) -> None:
        await stage.start(group)
        error = ErrorInfo("prompt_too_long", "too long")
        for number in range(30):
            stage.submit(f"{number}")
            refused = Completion(f"{number}", 1, error=error, permanent=True)
            await stage.host.say(Finished((refused,)))
        assert Generate((PROBE,)) not in await stage.host.heard()

    play(scene)
