"""A claim takes as much as it can carry, and what it leaves comes up again in its place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.policy.agenda import Agenda
from actors.policy.rank import ranker
from actors.policy.rules import ConfiguredRules
from autoglm.types import TaskSpec
from runtime.config import Config
from runtime.store import execution
from runtime.store import protocol as p
from runtime.store.overflow import Overflow
from runtime.store.queueprotocol import BeginServing
from runtime.store.scheduleprotocol import Schedule
from runtime.store.sqlite import SqliteStore

NOW = 1_700_000_000_000
LANE = ("normal", "default")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(tmp_path / "queue.sqlite3", ranker("fifo"))
    await store.open()
    yield store
    await store.close()


async def insert(store: SqliteStore, *prompts: str, priority: int | None = None) -> p.Effects:
    specs = (TaskSpec(f"{n}", prompt=text, priority=priority) for n, text in enumerate(prompts))
    return (await store.commit([p.InsertTasks(tuple(specs))], NOW)).effects


async def claim(
    store: SqliteStore, *seqs: int, now: int = NOW
) -> tuple[tuple[int, ...], p.Effects]:
    committed = await store.commit([p.ClaimTasks("batcher", seqs)], now)
    return tuple(task.seq for task in committed.results[0]), committed.effects


async def test_a_claim_ends_with_the_task_that_fills_it_however_large_that_is(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "CLAIM_BYTES_MAX", 1000)
    ready = (await insert(store, "a" * 2000, "b" * 600, "é" * 300, "c")).ready
    seqs, effects = await claim(store, 1, 2, 3, 4)
    assert seqs == (1,), "one at least"
    assert effects.ready == {LANE: ready[LANE][1:]}
    seqs, effects = await claim(store, 2, 3, 4)
    assert seqs == (2, 3), "bytes are counted, not characters"
    assert effects.ready == {LANE: ready[LANE][3:]}
    seqs, effects = await claim(store, 1, 4)
    assert (seqs, effects.ready) == ((), {LANE: ready[LANE][3:]}), "what runs is no longer claimed"
    assert (await claim(store, 4))[0] == (4,)


async def test_what_a_claim_leaves_is_taken_next_in_its_order(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "CLAIM_BYTES_MAX", 1000)
    effects = await insert(store, *["x" * 700] * 5, priority=0)
    agenda = Agenda("fifo", ConfiguredRules(Config()))
    agenda.learned(Schedule({}, {}))
    agenda.moved(effects.ready, (), urgent=effects.urgent)
    run: list[int] = []
    while taken := agenda.take(4, urgent=True):
        seqs, effects = await claim(store, *taken)
        agenda.not_claimed(set(taken) - set(seqs))
        agenda.moved(effects.ready, (), urgent=effects.urgent)
        run += seqs
    assert run == [1, 2, 3, 4, 5]


async def test_the_wait_of_what_a_claim_leaves_goes_on(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "CLAIM_BYTES_MAX", 1000)
    await store.commit([BeginServing("none", (), (Overflow("normal", 3000, "reject"),))], NOW)
    await insert(store, "x" * 2000, "y")
    _, effects = await claim(store, 1, 2, now=NOW + 2000)
    assert effects.ready.keys() == {LANE}
    released = await store.commit([p.ReleaseDue()], NOW + 3000)
    assert [ending.id for ending in released.effects.endings] == ["1"]
