"""As long as one task of a queue waits too long, and could run, the queues below it are closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.store import protocol as p
from runtime.store.overflow import Overflow
from runtime.store.queueprotocol import SteerQueue
from runtime.store.steering import SteerTasks
from tests.test_steering import NOW, WAIT_MS, Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "queue.sqlite3")
    await bench.store.open()
    yield bench
    await bench.store.close()


async def test_who_waits_too_long_goes_on_waiting_and_is_told_of_for_as_long(bench: Bench) -> None:
    await bench.rules(Overflow("core", WAIT_MS, "refuse_lower"))
    await bench.insert("a", "b", queue="core")
    late = NOW + WAIT_MS
    await bench.due(late)
    assert bench.effects.overflowed.keys() == {"core"}
    assert bench.wake_at(1) is None, "one of them is looked at again"
    again = bench.wake_at(2)
    assert again is not None
    assert late + WAIT_MS < again < bench.effects.overflowed["core"]
    await bench.claim(1, now=late)
    await bench.due(again)
    assert bench.effects.overflowed.keys() == {"core"}
    last = bench.wake_at(2)
    await bench.claim(2, now=again)
    assert last is not None
    await bench.due(last)
    assert not bench.effects.overflowed, "nobody waits any more"
    assert await bench.states("a", "b") == ["running", "running"]


@pytest.mark.parametrize("leaves", ["cancelled", "paused", "running"])
async def test_when_the_watched_one_leaves_the_oldest_that_is_late_is_watched(
    bench: Bench, leaves: str
) -> None:
    await bench.rules(Overflow("core", WAIT_MS, "refuse_lower"))
    await bench.insert("a", "b", "c", queue="core")
    late = NOW + WAIT_MS
    await bench.due(late)
    await bench.insert("new", queue="core", now=late)
    if leaves == "cancelled":
        await bench.write(p.CancelTasks(None, ("c",)), late + 1)
    elif leaves == "paused":
        await bench.write(SteerTasks("pause", None, ("c",)), late + 1)
    else:
        await bench.claim(3, now=late + 1)
    assert bench.effects.overflowed.keys() == {"core"}
    again = bench.wake_at(1)
    assert again is not None
    assert bench.effects.next_due_ms == again
    assert bench.wake_at(2) is None, "one is enough"
    await bench.write(p.CancelTasks(None, ("a", "b")), late + 2)
    assert bench.wake_at(4) == late + WAIT_MS, "who is new has not waited"


async def test_who_waits_because_the_queue_is_paused_closes_no_other(bench: Bench) -> None:
    await bench.rules(Overflow("core", WAIT_MS, "refuse_lower"))
    await bench.insert("a", queue="core")
    await bench.write(SteerQueue("core", "pause"))
    await bench.due(NOW + WAIT_MS)
    assert not bench.effects.overflowed
    again = bench.wake_at(1)
    assert again is not None, "the pause may be over by then"
    await bench.write(SteerQueue("core", "drain"))
    await bench.due(again)
    assert bench.effects.overflowed.keys() == {"core"}, "what is drained runs"
