"""Tasks answered without an engine: marked, free of charge, and never with another's answer."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from autoglm.deadletter import Content
from autoglm.errors import EngineUnavailable
from autoglm.types import Answer, ErrorInfo, Output, Sampling, TaskSpec, TaskState, Usage
from autoglm.wire import Accepted
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store import same
from runtime.store import upkeepprotocol as up
from runtime.store.deadprotocol import EditDead
from runtime.store.queueprotocol import BeginServing, SetQueue
from runtime.store.standin import KeptQueue, StandIn, StandIns
from tests.test_pruning import DAY, prune
from tests.test_store import NOW, Bench, bench, line, open_job, spec, success

__all__ = ["bench"]

CACHED: StandIns = {"normal": StandIn("cached")}
DEFAULT: StandIns = {"normal": StandIn("default", "come back later")}
FAIL_FAST: StandIns = {"normal": StandIn("fail_fast", "no engine", 7.5)}
WHAT = "simulated tiny"


async def begin(bench: Bench, what: str = WHAT, *cached: str) -> None:
    await bench.write(BeginServing(what, cached))


async def hand_in(bench: Bench, standins: StandIns, *specs: TaskSpec) -> tuple[Accepted, ...]:
    return await bench.write(p.InsertTasks(specs, standins))


async def answered(bench: Bench, id: str, text: str = "text", **more: Any) -> None:
    """A task that an engine answers."""
    await bench.insert(spec(id, **more))
    (seq,) = (seq for keys in bench.effects.ready.values() for _, seq in keys)
    await bench.claim(seq)
    await bench.record(success(seq, text=text))


async def answer_of(bench: Bench, id: str) -> Answer:
    return (await bench.store.query(p.FetchAnswers(None, (id,))))[id]


async def said(bench: Bench, id: str, **more: Any) -> str | None:
    """What a new task is answered with, by an earlier result."""
    await hand_in(bench, CACHED, spec(id, **more))
    answer = await answer_of(bench, id)
    assert (answer.task.degraded == "cached") == (answer.result is not None)
    return answer.result.text if answer.result else None


async def chores(bench: Bench) -> int:
    """Do what is left to do; in how many slices that was."""
    count = 1
    while await bench.write(up.DoChore()):
        count += 1
    return count


def indexed(bench: Bench) -> int:
    with sqlite3.connect(bench.path) as cx:
        (count,) = cx.execute("SELECT count(*) FROM same").fetchone()
    cx.close()
    return count


# ── default, fail_fast ───────────────────────────────────────────────────────────────────────────


async def test_a_default_text_is_recorded_in_the_transaction_that_accepts_the_task(
    bench: Bench,
) -> None:
    (accepted,) = await hand_in(bench, DEFAULT, spec("a", expires_at=NOW + 1))
    effects = bench.effects
    assert accepted.task is not None
    assert (accepted.task.state, accepted.task.degraded) == (TaskState.SUCCEEDED, "default")
    answer = await answer_of(bench, "a")
    assert answer.task == accepted.task
    assert answer.result == Output("come back later", "stop", Usage(), "default")
    assert (answer.task.attempt, answer.task.finished_at) == (0, NOW)
    assert await bench.path_of("a") == ["pending", "succeeded"]
    assert effects.ready == {}
    assert effects.endings == [p.Ending("a", (), answer)]
    summary = await bench.store.query(p.FetchSummary())
    assert summary.counts == {TaskState.SUCCEEDED: 1}
    assert summary.next_due_ms is None


async def test_only_its_own_queue_is_degraded(bench: Bench) -> None:
    await hand_in(bench, DEFAULT, spec("a"), spec("b", queue="core"))
    assert await bench.states("a", "b") == ["succeeded", "pending"]
    assert bench.effects.ready.keys() == {("core", "default")}


async def test_who_waits_for_another_waits_and_who_need_not_is_answered(bench: Bench) -> None:
    await bench.insert(spec("before"))
    blocked, free = spec("b", after=("before",)), spec("c", after=("a",))
    for standins in (DEFAULT, FAIL_FAST):
        await hand_in(bench, standins, spec("a"), blocked, free)
    assert await bench.states("before", "a", "b", "c") == [
        *("pending", "succeeded", "blocked", "succeeded"),
    ]


async def test_what_has_expired_is_not_answered(bench: Bench) -> None:
    await hand_in(bench, DEFAULT, spec("a", expires_at=NOW))
    assert await bench.states("a") == ["pending"]


async def test_fail_fast_refuses_what_is_new_and_knows_what_is_not(bench: Bench) -> None:
    await bench.insert(spec("old"))
    new, old = await hand_in(bench, FAIL_FAST, spec("new"), spec("old"))
    assert new == Accepted(error=ErrorInfo("engine_unavailable", "no engine"), retry_after=7.5)
    assert old.duplicate
    assert await bench.store.query(p.FetchAnswers(None, ("new",))) == {}


async def test_lines_of_a_job_are_answered_and_end(bench: Bench) -> None:
    await open_job(bench)
    lines = (line(1, spec("a")), line(2, spec("b")))
    await bench.write(jp.InsertLines(None, "job", lines, last=True, standins=DEFAULT))
    query = jp.FetchJobLines(None, "job", 0, ordered=True, limit=9)
    found, done = await bench.store.query(query)
    assert [each.answer.task.degraded for each in found] == ["default"] * 2
    assert done


async def test_lines_that_are_refused_change_nothing_and_may_come_again(bench: Bench) -> None:
    await open_job(bench)
    lines = (line(1, spec("a", queue="core")), line(2, spec("b")))
    refused = await bench.write(jp.InsertLines(None, "job", lines, last=True, standins=FAIL_FAST))
    assert isinstance(refused, EngineUnavailable)
    assert refused.retry_after == 7.5
    assert await bench.write(jp.InsertLines(None, "job", lines, last=True)) == 2
    # Known lines are passed over, whatever their queue says by now.
    again = jp.InsertLines(None, "job", lines, last=True, standins=FAIL_FAST)
    assert await bench.write(again) == 2


# ── cached ───────────────────────────────────────────────────────────────────────────────────────


async def test_the_newest_answer_to_the_same_request_is_given_again(bench: Bench) -> None:
    await begin(bench, WHAT, "normal")
    await answered(bench, "a", "first", prompt="x")
    await answered(bench, "b", "second", prompt="x")
    assert await said(bench, "c", prompt="x") == "second"
    assert await said(bench, "d", prompt="x", max_attempts=9, key="k", kind="k") == "second"
    assert (await answer_of(bench, "c")).result == Output("second", "stop", Usage(), "cached")


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "y"},
        {"tenant": "another"},
        {"sampling": Sampling(seed=1)},
        {"prompt": None, "messages": ()},
    ],
)
async def test_whoever_asks_for_anything_else_waits(bench: Bench, other: dict[str, Any]) -> None:
    await begin(bench, WHAT, "normal")
    await answered(bench, "a", prompt="x")
    assert await said(bench, "b", **{"prompt": "x", **other}) is None
    assert await bench.states("b") == ["pending"]


async def test_the_hash_is_a_hint_and_the_content_is_compared(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def five(*_: object) -> int:
        return 5

    monkeypatch.setattr(same, "hash_of", five)
    await begin(bench, WHAT, "normal")
    await answered(bench, "a", "of x", prompt="x")
    await answered(bench, "b", "of y", prompt="y")
    await answered(bench, "c", "of another", prompt="x", tenant="another")
    assert await said(bench, "d", prompt="x") == "of x"
    assert await said(bench, "e", prompt="z") is None


async def test_answers_of_another_model_are_not_given_and_count_again_when_it_is_back(
    bench: Bench,
) -> None:
    await begin(bench, WHAT, "normal")
    await answered(bench, "a", "of the first", prompt="x")
    await begin(bench, "simulated other", "normal")
    assert await said(bench, "b", prompt="x") is None
    await begin(bench, WHAT, "normal")
    assert await said(bench, "c", prompt="x") == "of the first"


async def test_answers_of_a_model_that_nobody_noted_are_not_given(bench: Bench) -> None:
    await answered(bench, "a", prompt="x")
    await begin(bench, WHAT, "normal")
    await chores(bench)
    assert await said(bench, "b", prompt="x") is None


async def test_an_answer_without_an_engine_is_no_earlier_answer(bench: Bench) -> None:
    await begin(bench, WHAT, "normal")
    await hand_in(bench, DEFAULT, spec("a", prompt="x"))
    await bench.write(SetQueue("normal", "queue", None, ()))
    await bench.write(SetQueue("normal", "cached", None, ()))
    await chores(bench)
    assert indexed(bench) == 0
    assert await said(bench, "b", prompt="x") is None


async def test_what_was_edited_counts_with_what_it_asks_for_now(bench: Bench) -> None:
    await begin(bench, WHAT, "normal")
    await bench.insert(spec("a", prompt="x"))
    await bench.claim(1)
    error = ErrorInfo("engine_error", "no")
    await bench.record(p.Outcome(1, 1, TaskState.DEAD, error=error, charged=True))
    await bench.write(EditDead(None, "a", 1, Content(prompt="y"), "ada"))
    await bench.claim(1)
    await bench.record(success(1, 2, "of y"))
    assert await said(bench, "b", prompt="x") is None
    assert await said(bench, "c", prompt="y") == "of y"


async def test_what_is_pruned_is_not_found_any_more(bench: Bench) -> None:
    await begin(bench, WHAT, "normal")
    await answered(bench, "a", prompt="x")
    assert indexed(bench) == 1
    await prune(bench, NOW + DAY)
    assert indexed(bench) == 0
    assert await said(bench, "b", prompt="x") is None


async def test_long_answers_are_copied_up_to_a_bound_and_the_rest_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.store.degraded.COPIED_CHARS_MAX", 9)
    await begin(bench, WHAT, "normal")
    await answered(bench, "a", "12345", prompt="x")
    await hand_in(bench, CACHED, *(spec(id, prompt="x", after=("a",)) for id in "bcd"))
    assert await bench.states(*"bcd") == ["succeeded", "pending", "pending"]


# ── the index is kept while somebody wants it ────────────────────────────────────────────────────


async def test_nothing_is_indexed_while_no_queue_wants_it(bench: Bench) -> None:
    await begin(bench)
    await answered(bench, "a")
    assert not bench.effects.chores
    assert indexed(bench) == 0


async def test_what_was_answered_before_is_caught_up_with_in_slices(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same, "SLICE", 2)
    await begin(bench)
    for id in "abcde":
        await answered(bench, id)
    await bench.insert(spec("open"))
    await bench.write(SetQueue("core", "cached", None, ()))
    assert bench.effects.chores
    await answered(bench, "later")
    await bench.write(up.DoChore())
    await bench.store.close()
    await bench.store.open()
    assert await chores(bench) == 2
    assert indexed(bench) == 6
    assert await said(bench, "again", prompt="prompt a") == "text"


@pytest.mark.parametrize("how", ["reset", "set", "configuration"])
async def test_it_is_kept_no_longer_than_a_queue_wants_it_and_then_has_no_gap(
    bench: Bench, how: str
) -> None:
    await begin(bench, WHAT, *(("normal",) if how == "configuration" else ()))
    if how != "configuration":
        await bench.write(SetQueue("normal", "cached", None, ()))
    await answered(bench, "a")
    if how == "configuration":
        await begin(bench)
    else:
        await bench.write(SetQueue("normal", None if how == "reset" else "queue", None, ()))
    await answered(bench, "b")
    assert indexed(bench) == 1
    await begin(bench, WHAT, "normal")
    if how == "set":  # what was set wins over the configuration
        await chores(bench)
        assert indexed(bench) == 1
        await bench.write(SetQueue("normal", None, None, ("normal",)))
    await chores(bench)
    assert indexed(bench) == 2


# ── settings ─────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_set_of_a_queue_stays_until_it_is_taken_back(bench: Bench) -> None:
    await bench.write(SetQueue("core", "default", "text", (), "ada"))
    await bench.write(SetQueue("core", "fail_fast", None, (), "ada"))
    assert bench.effects.queues == {"core": KeptQueue("core", "fail_fast", "text")}
    await bench.store.close()
    await bench.store.open()
    summary = await bench.store.query(p.FetchSummary())
    assert summary.queues == (KeptQueue("core", "fail_fast", "text"),)
    await bench.write(SetQueue("core", None, None, ()))
    assert bench.effects.queues == {"core": None}
    assert (await bench.store.query(p.FetchSummary())).queues == ()
