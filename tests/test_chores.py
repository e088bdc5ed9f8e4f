"""A big job is cancelled in slices, whoever dies meanwhile, and nobody notices the difference."""

from __future__ import annotations

import pytest

from autoglm.types import TaskState
from autoglm.wire import ListTasks
from runtime.store import endings
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import upkeepprotocol as up
from tests.test_store import Bench, bench, line, open_job, spec, success

__all__ = ["bench"]


@pytest.fixture(autouse=True)
def _slices_of_two(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr(endings, "CANCEL_SLICE", 2)


async def fill(bench: Bench, count: int = 5) -> None:
    await open_job(bench)
    lines = tuple(line(n, spec(f"t{n}", key=f"k{n}")) for n in range(1, count + 1))
    await bench.write(jp.InsertLines(None, "job", lines, last=False))


async def still_open(bench: Bench) -> int:
    tasks, _ = await bench.store.query(p.FetchTasks(None, ListTasks(0, limit=99)))
    return sum(not task.state.ended for task in tasks)


async def cancel(bench: Bench, *, slices: int = 99) -> tuple[int, int | None]:
    after, count = 0, 0
    while after is not None and slices > 0:
        done: p.Settled = await bench.write(p.CancelTasks(None, job="job", after=after))
        after, count, slices = done.next, count + done.count, slices - 1
    return count, after


async def test_slices_together_cancel_every_open_task_of_a_job(bench: Bench) -> None:
    await fill(bench)
    await bench.insert(spec("no line of it"))
    await bench.claim(2)
    await bench.record(success(2))
    assert await cancel(bench, slices=1) == (1, 2)
    assert await still_open(bench) == 4
    assert await cancel(bench) == (3, None)
    assert await bench.states("t2", "no line of it") == ["succeeded", "pending"]
    assert await still_open(bench) == 1


async def test_cancelling_again_after_it_was_broken_off_finishes_it(bench: Bench) -> None:
    await fill(bench)
    await cancel(bench, slices=1)
    await bench.store.close()
    await bench.store.open()
    assert await cancel(bench) == (3, None)
    assert await still_open(bench) == 0


async def test_a_job_that_was_started_over_is_cancelled_after_a_restart_too(bench: Bench) -> None:
    await fill(bench)
    await open_job(bench, "second", fresh=True)
    assert await still_open(bench) == 5
    assert await bench.write(up.DoChore())
    assert await still_open(bench) == 3
    await bench.store.close()
    await bench.store.open()
    slices = 1
    while await bench.write(up.DoChore()):
        slices += 1
    assert slices <= 4
    assert await still_open(bench) == 0
    assert not await bench.write(up.DoChore())


async def test_the_new_job_has_its_keys_and_its_tasks_before_the_old_ones_are_cancelled(
    bench: Bench,
) -> None:
    await fill(bench)
    await open_job(bench, "second", fresh=True)
    same = line(1, spec("n1", prompt="prompt t1", key="k1"))
    other = line(2, spec("n2", prompt="other", key="k2"))
    again = line(3, spec("n3", prompt="other", key="k2"))
    await bench.write(jp.InsertLines(None, "second", (same, other, again), last=True))
    while await bench.write(up.DoChore()):
        pass
    tasks, _ = await bench.store.query(p.FetchTasks(None, ListTasks(0, job="second", limit=9)))
    assert [(task.id, task.key, task.state) for task in tasks] == [
        ("n2", "k2", TaskState.PENDING),
        ("n1", "k1", TaskState.PENDING),
    ]
    assert await still_open(bench) == 2


async def test_a_key_of_a_task_that_is_no_line_is_never_taken_away(bench: Bench) -> None:
    await bench.insert(spec("a", prompt="x", key="k"))
    await fill(bench)
    await open_job(bench, "second", fresh=True)
    lines = (line(1, spec("b", prompt="x", key="k")),)
    await bench.write(jp.InsertLines(None, "second", lines, last=True))
    found = await bench.store.query(p.FetchAnswers(None, ("a", "b")))
    assert list(found) == ["a"]
    assert found["a"].task.key == "k"
