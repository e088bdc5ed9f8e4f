"""What queues do while no engine can serve: when that is, and what is said then."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from actors.policy.degrade import Outage, outage, stand_ins
from actors.queues import Queues
from autoglm import wire
from autoglm.degrade import QueueStatus
from autoglm.errors import InvalidRequest
from autoglm.types import TaskSpec
from runtime.breaker import Breaker, BreakerOptions
from runtime.clock import SystemClock
from runtime.configload import load
from runtime.store.jobprotocol import InsertLines
from runtime.store.protocol import InsertTasks, ReleaseDue
from runtime.store.queueprotocol import BeginServing, SetQueue
from runtime.store.standin import KeptQueue, StandIn
from runtime.supervision import ChildSpec, Supervised

NOW = 1000.0


def breaker(state: str, wait_s: float = 5) -> Breaker:
    made = Breaker(BreakerOptions())
    if state != "closed":
        made.go_on(NOW - (wait_s if state == "half_open" else 0), 1, wait_s)
    if state == "half_open":
        made.try_now(NOW)
    assert made.state == state
    return made


@pytest.mark.parametrize(
    ("states", "out"),
    [
        ([], None),
        (["closed"], None),
        (["open", "closed"], None),
        (["half_open", "closed"], None),
        (["open"], Outage(5.0)),
        (["half_open"], Outage(None)),
        (["half_open", "open"], Outage(5.0)),
    ],
)
def test_no_engine_can_serve_while_no_breaker_is_closed(
    states: list[str], out: Outage | None
) -> None:
    assert outage([breaker(state) for state in states], NOW) == out


def test_the_first_of_several_engines_that_may_start_says_when() -> None:
    assert outage([breaker("open", 9), breaker("open", 4)], NOW) == Outage(4.0)


def test_each_queue_does_what_it_is_set_to() -> None:
    queues = [
        QueueStatus("a", "queue"),
        QueueStatus("b", "cached"),
        QueueStatus("c", "default", default_text="text"),
        QueueStatus("d", "fail_fast"),
    ]
    found = stand_ins(queues, Outage(3.0))
    assert list(found) == ["b", "c", "d"]
    assert found["b"] == StandIn("cached")
    assert found["c"] == StandIn("default", "text")
    assert found["d"].retry_after == 3.0
    assert "queue 'd'" in found["d"].text
    assert "in 3 s" in found["d"].text
    assert "being tried now" in stand_ins(queues, Outage(None))["d"].text


def queues(*settings: str, engines: Sequence[Breaker] = ()) -> Queues:
    children = [
        Supervised(ChildSpec("engine", lambda: pytest.fail("not started"))) for _ in engines
    ]
    for child, its in zip(children, engines, strict=True):
        child.breaker = its
    return Queues(load(settings=settings).queues, "simulated tiny", children, SystemClock())


def test_only_what_takes_tasks_in_is_equipped_and_only_while_no_engine_can_serve() -> None:
    task = TaskSpec("a", prompt="x")
    tasks, other = InsertTasks((task,)), ReleaseDue()
    lines = InsertLines(None, "job", (), last=True)
    held, serving = breaker("open"), breaker("closed")
    setting = "queues.core.degrade=cached"
    assert queues(setting, engines=[serving]).equip([tasks, lines]) == [tasks, lines]
    assert queues(engines=[held]).equip([tasks, lines]) == [tasks, lines]
    equipped = queues(setting, engines=[held]).equip([tasks, other, lines])
    standins = {"core": StandIn("cached")}
    assert equipped == [
        InsertTasks((task,), standins),
        other,
        InsertLines(None, "job", (), last=True, standins=standins),
    ]


def test_what_was_set_wins_over_the_configuration_until_it_is_taken_back() -> None:
    made = queues("queues.core={degrade: default, default_text: configured}")
    assert made.status("core") == QueueStatus("core", "default", "config", "configured")
    made.recalled([KeptQueue("core", "queue"), KeptQueue("normal", "fail_fast")])
    assert made.status("core") == QueueStatus("core", "queue", "live", "configured")
    assert made.status("normal") == QueueStatus("normal", "fail_fast", "live")
    made.changed({"core": KeptQueue("core", "default", "live"), "normal": None})
    assert made.status("core") == QueueStatus("core", "default", "live", "live")
    assert made.status("normal") == QueueStatus("normal", "queue")


def test_a_server_begins_with_its_model_and_the_queues_that_want_earlier_answers() -> None:
    assert queues("queues.core.degrade=cached").begin() == BeginServing("simulated tiny", ("core",))


def test_a_setting_is_what_the_store_is_asked_for() -> None:
    made = queues("queues.core.degrade=cached")
    asked = wire.SetQueue(1, "normal", "default", "text")
    assert made.setting(asked, "ada") == SetQueue("normal", "default", "text", ("core",), "ada")
    reset = wire.SetQueue(1, "normal", reset=True)
    assert made.setting(reset, "ada") == SetQueue("normal", None, None, ("core",), "ada")
    text_alone = wire.SetQueue(1, "core", default_text="text")
    assert made.setting(text_alone, None) == SetQueue("core", "cached", "text", ("core",))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (wire.SetQueue(1, "croe", "queue"), "did you mean core?"),
        (wire.SetQueue(1, "core"), "say what to set"),
        (wire.SetQueue(1, "core", "queue", reset=True), "give nothing else"),
        (wire.SetQueue(1, "core", "default"), "needs a default_text"),
        (wire.SetQueue(1, "core", "default", "x" * 16_385), "up to 16384 characters"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(request_: wire.SetQueue, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said.replace("?", r"\?")):
        queues().setting(request_, None)
