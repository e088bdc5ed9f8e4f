"""Tasks that come after others, in the store: what becomes of them, all of a graph or nothing, and
what an urgent one waits for becomes urgent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.rank import HOUR_MS, ranker
from autoglm.given import priority_of
from autoglm.graph import NOT_STORED
from autoglm.types import Task, TaskSpec
from autoglm.wire import Accepted, ListTasks
from runtime.store import blocked, urgency
from runtime.store import protocol as p
from runtime.store import upkeepprotocol as up
from runtime.store.deadprotocol import Chosen, RetryDead
from runtime.store.graphprotocol import InsertGraph
from runtime.store.sqlite import SqliteStore
from runtime.store.standin import StandIn
from runtime.store.transact import transact
from runtime.store.transaction import Counters, Transaction
from runtime.store.urgency import inherit
from tests.test_deadletters import kill
from tests.test_store import NOW, Bench, bench, spec, success

__all__ = ["bench"]


async def chores(bench: Bench) -> int:
    """Do what is left to do; how many slices that took."""
    slices = 0
    while await bench.write(up.DoChore()):
        slices += 1
    return slices


async def graph(bench: Bench, *specs: TaskSpec, **more: Any) -> tuple[Accepted, ...]:
    return await bench.write(InsertGraph(specs, **more))


async def task(bench: Bench, id: str) -> Task:
    found = await bench.store.query(p.FetchAnswers(None, (id,)))
    return found[id].task


async def run(bench: Bench, seq: int, attempt: int = 1) -> None:
    assert [each.seq for each in await bench.claim(seq)] == [seq]
    await bench.record(success(seq, attempt))


def codes(accepted: Iterable[Accepted]) -> list[str | None]:
    return [each.error.code if each.error else None for each in accepted]


# ── whether it runs after a failure ──────────────────────────────────────────────────────────────


async def test_who_wants_to_run_all_the_same_runs_once_all_have_ended(bench: Bench) -> None:
    await bench.insert(
        *(spec(id) for id in "abc"),
        spec("d", after=("a", "b", "c"), after_failure="run"),
        spec("e", after=("d",)),
    )
    await bench.write(p.CancelTasks(None, ("a",)))
    await run(bench, 2)
    assert await bench.states("d", "e") == ["blocked", "blocked"]
    await bench.write(p.CancelTasks(None, ("c",)))
    assert await bench.states("d", "e") == ["pending", "blocked"]
    await run(bench, 4)
    assert await bench.states("d", "e") == ["succeeded", "pending"]


async def test_an_upstream_that_has_failed_already_refuses_one_and_lets_the_other_run(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), spec("b"))
    await bench.write(p.CancelTasks(None, ("a",)))
    plain, all_the_same, later = await bench.insert(
        spec("c", after=("a",)),
        spec("d", after=("a",), after_failure="run"),
        spec("e", after=("a", "b"), after_failure="run"),
    )
    assert codes((plain, all_the_same, later)) == ["upstream_failed", None, None]
    assert await bench.states("d", "e") == ["pending", "blocked"]


async def test_a_task_says_what_it_waits_for_and_what_it_does_on_a_failure(bench: Bench) -> None:
    names = [f"t{number:02}" for number in range(12)]
    await bench.insert(*map(spec, names))
    (accepted,) = await bench.insert(spec("w", after=names[::-1], after_failure="run"))
    shown = await task(bench, "w")
    assert shown.waits_for == tuple(names[:10])
    assert shown.after_failure == "run"
    assert accepted.task == shown
    listed, _ = await bench.store.query(p.FetchTasks(None, ListTasks(0, limit=1)))
    assert listed == (shown,)
    for seq in range(1, 13):
        await run(bench, seq)
    await run(bench, 13)
    (ending,) = bench.effects.endings
    ended = await task(bench, "w")
    assert ended.waits_for == ()
    assert ending.answer is not None
    assert ending.answer.task == ended
    assert (await task(bench, "t00")).after_failure is None


async def test_the_choice_survives_a_restart(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b", after=("a",), after_failure="run"))
    await bench.store.close()
    await bench.store.open()
    await bench.write(p.CancelTasks(None, ("a",)))
    assert await bench.states("b") == ["pending"]


async def test_another_tenants_task_is_as_unknown_as_none(bench: Bench) -> None:
    await bench.insert(spec("a", tenant="theirs"))
    theirs, none = await bench.insert(
        spec("b", tenant="ours", after=("a",)), spec("c", tenant="ours", after=("x",))
    )
    assert theirs.error is not None
    assert none.error is not None
    assert theirs.error.message.replace("a:", "x:") == none.error.message


# ── many who wait ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("ending", "state"), [("success", "pending"), ("cancel", "cancelled")])
async def test_many_who_wait_are_told_in_slices(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ending: str, state: str
) -> None:
    monkeypatch.setattr(blocked, "TELL_SLICE", 3)
    names = [f"w{number}" for number in range(10)]
    await bench.insert(spec("a"), *(spec(name, after=("a",)) for name in names))
    if ending == "success":
        await run(bench, 1)
    else:
        await bench.write(p.CancelTasks(None, ("a",)))
    assert bench.effects.chores
    assert await bench.states(*names) == [state] * 3 + ["blocked"] * 7
    await bench.store.close()
    await bench.store.open()
    assert 2 <= await chores(bench) <= 5
    assert await bench.states(*names) == [state] * 10


async def test_no_slice_is_longer_than_it_may_be_however_wide_and_deep_it_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "TELL_SLICE", 4)
    specs = [spec("root")]
    for wide in range(6):
        before = "root"
        for deep in range(6):
            specs.append(spec(f"{wide}{deep}", after=(before,)))
            before = f"{wide}{deep}"
    await bench.insert(*specs)
    await bench.write(p.CancelTasks(None, ("root",)))
    assert len(bench.effects.endings) <= 5
    while await bench.write(up.DoChore()):
        assert len(bench.effects.endings) <= 4
    assert await bench.states(*(each.id for each in specs)) == ["cancelled"] * 37


async def test_who_comes_while_an_end_is_being_told_knows_of_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "TELL_SLICE", 1)
    await bench.insert(spec("a"), *(spec(f"w{number}", after=("a",)) for number in range(3)))
    await run(bench, 1)
    await bench.insert(spec("late", after=("a",)))
    assert await bench.states("w0", "w1", "w2", "late") == [
        *("pending", "blocked", "blocked", "pending")
    ]


async def test_one_that_died_and_is_retried_before_all_were_told_cancels_those_and_no_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "TELL_SLICE", 1)
    await bench.insert(spec("a"), *(spec(f"w{number}", after=("a",)) for number in range(3)))
    await kill(bench, 1)
    await bench.write(RetryDead(Chosen(None, ("a",)), "somebody"))
    await bench.insert(spec("late", after=("a",)))
    await run(bench, 1, attempt=2)
    assert await bench.states("w0", "w1", "w2", "late") == [
        *("cancelled", "blocked", "blocked", "blocked")
    ]
    await chores(bench)
    assert await bench.states("w0", "w1", "w2", "late") == ["cancelled"] * 3 + ["pending"]


async def test_an_end_is_told_though_the_task_was_pruned_meanwhile(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocked, "TELL_SLICE", 1)
    await bench.insert(spec("a"), *(spec(f"w{number}", after=("a",)) for number in range(3)))
    await run(bench, 1)
    assert (await bench.write(up.PruneTasks(NOW + 1))).tasks == 1
    await chores(bench)
    assert await bench.states("w0", "w1", "w2") == ["pending"] * 3


# ── graphs ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_graph_is_stored_as_a_whole_and_a_repetition_changes_nothing(bench: Bench) -> None:
    specs = (spec("a"), spec("b", after=("a",)), spec("c", after=("a", "b"), after_failure="run"))
    first = await graph(bench, *specs)
    assert codes(first) == [None] * 3
    again = await graph(bench, *specs)
    assert [each.duplicate for each in again] == [True] * 3
    assert [each.task for each in again] == [each.task for each in first]
    assert bench.effects.ready == {}
    await bench.write(p.CancelTasks(None, ("a",)))
    assert codes(await graph(bench, *specs)) == [None] * 3


async def test_one_that_is_refused_takes_all_of_its_graph_along_and_nobody_hears_of_it(
    bench: Bench,
) -> None:
    await bench.insert(spec("known"))
    refused = await graph(
        bench,
        spec("a", expires_at=NOW + 5),
        spec("b", after=("a",)),
        spec("c", after=("nowhere",)),
        spec("known", prompt="other"),
    )
    assert codes(refused) == [NOT_STORED, NOT_STORED, "not_found", "conflict"]
    effects = bench.effects
    assert (effects.ready, effects.counts, effects.next_due_ms) == ({}, {}, None)
    listed, _ = await bench.store.query(p.FetchTasks(None, ListTasks(0)))
    assert [each.id for each in listed] == ["known"]
    assert codes(await graph(bench, spec("a"), spec("b", after=("a",)))) == [None, None]
    assert await bench.path_of("b") == ["blocked"]


async def test_a_graph_that_is_refused_leaves_the_writes_beside_it_alone(bench: Bench) -> None:
    committed = await bench.store.commit(
        [
            p.InsertTasks((spec("before"),)),
            InsertGraph((spec("a"), spec("b", after=("x",)))),
            p.InsertTasks((spec("behind"),)),
        ],
        NOW,
    )
    assert codes(committed.results[1]) == [NOT_STORED, "not_found"]
    assert await bench.states("before", "behind") == ["pending", "pending"]
    (keys,) = committed.effects.ready.values()
    assert len(keys) == 2
    summary = await bench.store.query(p.FetchSummary())
    assert sum(summary.counts.values()) == 2


async def test_who_comes_after_a_task_that_was_there_under_another_id_comes_after_that(
    bench: Bench,
) -> None:
    await bench.insert(spec("old", prompt="x", key="k"))
    twin = spec("new", prompt="x", key="k")
    accepted = await graph(bench, twin, spec("b", after=("new",)))
    assert accepted[0].duplicate
    assert (await task(bench, "b")).waits_for == ("old",)
    await run(bench, 1)
    assert await bench.states("b") == ["pending"]


async def test_the_same_key_twice_in_one_submit_is_one_task_wherever_it_stands(
    bench: Bench,
) -> None:
    first = spec("first")
    specs = [spec(id, prompt="x", key="k", after=("first",)) for id in "ab"]
    accepted = await graph(
        bench,
        first,
        spec("w", after=("first",)),
        spec("p", prompt="y", key="l"),
        *specs,
        spec("q", prompt="y", key="l", after=("first",)),
    )
    assert [each.duplicate for each in accepted] == [*[False] * 4, True, True]


async def test_without_an_engine_a_graph_is_answered_or_refused_as_a_whole(bench: Bench) -> None:
    specs = (spec("a"), spec("b", after=("a",)), spec("c", queue="core", after=("b",)))
    away = StandIn("fail_fast", "nobody is there", 7.0)
    refused = await graph(bench, *specs, standins={"core": away, "normal": StandIn("default", "x")})
    # What it comes after is answered, so it would be answered too.
    assert codes(refused) == [NOT_STORED, NOT_STORED, "engine_unavailable"]
    assert {each.retry_after for each in refused} == {7.0}
    assert bench.effects.endings == []
    await graph(bench, *specs, standins={"normal": StandIn("default", "x")})
    assert await bench.states("a", "b", "c") == ["succeeded", "succeeded", "pending"]


# ── urgency ──────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def ranked(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "ranked.sqlite3")
    bench.store = SqliteStore(bench.path, ranker("mlfq"))
    await bench.store.open()
    yield bench
    await bench.store.close()


async def test_what_an_urgent_task_waits_for_becomes_urgent_however_far_away(
    ranked: Bench,
) -> None:
    await ranked.insert(
        spec("a", priority=9), spec("b", priority=5, after=("a",)), spec("other", priority=3)
    )
    assert (await task(ranked, "a")).inherited_priority == 5
    await ranked.insert(spec("c", priority=1, after=("b",)))
    assert ranked.effects.ready == {("normal", "default"): [(NOW + HOUR_MS, 1)]}
    assert ranked.effects.urgent == [1]
    assert [(each.priority, each.inherited_priority) for each in [await task(ranked, "a")]] == [
        (9, 1)
    ]
    assert (await task(ranked, "b")).inherited_priority == 1
    assert (await task(ranked, "c")).inherited_priority is None
    (claimed,) = await ranked.claim(1)
    assert (claimed.priority, claimed.rank) == (1, NOW + HOUR_MS)
    await ranked.record(success(1))
    (ending,) = ranked.effects.endings
    assert ending.answer is not None
    assert ending.answer.task == await task(ranked, "a")
    assert ranked.effects.ready == {("normal", "default"): [(NOW + HOUR_MS, 2)]}
    assert ranked.effects.urgent == [2]


async def test_who_is_ahead_already_keeps_his_rank_and_the_less_urgent_change_nothing(
    ranked: Bench,
) -> None:
    await ranked.insert(spec("a", priority=5), now=NOW - 9 * HOUR_MS)
    await ranked.insert(spec("b", priority=7, after=("a",)), spec("c", priority=3, after=("a",)))
    assert ranked.effects.ready == {("normal", "default"): [(NOW - 4 * HOUR_MS, 1)]}
    assert (await task(ranked, "a")).inherited_priority == 3


async def test_a_running_or_retrying_upstream_goes_on_with_what_it_inherited(ranked: Bench) -> None:
    await ranked.insert(spec("a", priority=8))
    await ranked.claim(1)
    await ranked.insert(spec("b", priority=0, after=("a",)))
    assert ranked.effects.ready == {}
    await ranked.write(p.PutBack("batcher"))
    assert ranked.effects.ready == {("normal", "default"): [(NOW, 1)]}


async def test_a_graph_that_is_urgent_at_its_end_is_urgent_from_its_beginning(
    ranked: Bench,
) -> None:
    names = [f"t{number}" for number in range(50)]
    specs = [
        spec(id, priority=9 - number % 9, after=(names[number - 1],) if number else ())
        for number, id in enumerate(names)
    ]
    await graph(ranked, *specs[:-1], spec(names[-1], priority=0, after=(names[-2],)))
    assert {(await task(ranked, id)).inherited_priority for id in names[:-1]} == {0}


async def test_a_long_walk_is_finished_by_the_chores_whoever_dies_meanwhile(
    ranked: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urgency, "HURRY_SLICE", 3)
    names = [f"t{number}" for number in range(20)]
    for number, id in enumerate(names):
        await ranked.insert(spec(id, after=(names[number - 1],) if number else ()))
    await ranked.insert(spec("urgent", priority=0, after=(names[-1],)))
    assert ranked.effects.chores
    assert (await task(ranked, "t0")).inherited_priority is None
    await ranked.store.close()
    await ranked.store.open()
    assert await chores(ranked) >= 5
    assert {(await task(ranked, id)).inherited_priority for id in names} == {0}


@st.composite
def histories(draw: st.DrawFn) -> list[TaskSpec]:
    """Tasks in the order they are handed in, each after some of those before it."""
    specs: list[TaskSpec] = []
    for number in range(draw(st.integers(2, 9))):
        ids = [each.id for each in specs]
        after = draw(st.lists(st.sampled_from(ids), max_size=3)) if ids else []
        priority = draw(st.integers(0, 9))
        specs.append(spec(f"t{number}", priority=priority, after=tuple(after)))
    return specs


@given(histories(), st.booleans(), st.integers(0, 8), st.integers(0, 9))
def test_each_is_as_urgent_as_the_most_urgent_of_all_that_wait_for_it(
    specs: list[TaskSpec], at_once: bool, edited: int, priority: int
) -> None:
    cx = sqlite3.connect(":memory:", isolation_level=None)
    cx.executescript(files("runtime.store").joinpath("schema.sql").read_text())
    counters, ranking = Counters(cx), ranker("mlfq")
    for number, each in enumerate(specs):
        tasks = specs if at_once else [each]
        now = NOW if at_once else NOW + number * HOUR_MS // 2
        transact(cx, counters, [InsertGraph(tuple(tasks))], now, ranking)
        if at_once:
            break
    own = {
        each.id: (
            ranking.rank(each, NOW if at_once else NOW + number * HOUR_MS // 2),
            priority_of(each),
        )
        for number, each in enumerate(specs)
    }
    before = urgencies(cx)
    for id, (rank, goes_by) in before.items():
        those = [own[each] for each in waiting_for(id, specs)]
        assert rank == min(each[0] for each in those)
        assert goes_by == min(each[1] for each in those)

    id = f"t{min(edited, len(specs) - 1)}"
    now_own = (NOW + priority * HOUR_MS, priority)
    cx.execute("UPDATE task SET rank = ?, priority = ? WHERE id = ?", (*now_own, id))
    (seq,) = cx.execute("SELECT seq FROM task WHERE id = ?", (id,)).fetchone()
    rank = inherit(Transaction(cx, counters, NOW, ranking), seq)
    found = urgencies(cx)
    assert rank == found[id][0] <= now_own[0]
    for each in specs:
        assert found[each.id] <= before[each.id] or each.id == id
        for upstream in each.after:
            assert found[upstream][0] <= found[each.id][0]
            assert found[upstream][1] <= found[each.id][1]


def urgencies(cx: sqlite3.Connection) -> dict[str, tuple[int, int]]:
    """Rank and priority that each task goes by."""
    rows = cx.execute("SELECT id, rank, coalesce(inherited, priority) FROM task")
    return {id: (rank, goes_by) for id, rank, goes_by in rows}


def waiting_for(id: str, specs: list[TaskSpec]) -> set[str]:
    """`id` and all that wait for it, however far away."""
    found = {id}
    for each in specs:
        if found & set(each.after):
            found.add(each.id)
    return found
