"""Watches what is answered without an engine: only ever while none could serve, and marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from actors.tree import Tree
from autoglm.types import TaskState
from autoglm.wire import Accepted
from runtime.breaker import BreakerState
from runtime.store import protocol as p
from tests.simulation.disk import SimulatedStore


class WatchedStore:
    """A store whose commits are looked at. What is allowed is told here once more, without the
    policy: a breaker that is closed anywhere means that tasks wait.
    """

    def __init__(self, store: SimulatedStore, found: list[str]) -> None:
        self._store = store
        self._found = found
        self.tree: Tree | None = None
        self.answered = 0
        self._paused = self._paused_now()
        """Of which nothing is begun (False), or into which nothing is taken (True)."""

    async def open(self) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def query(self, query: p.Query) -> Any:
        return await self._store.query(query)

    async def commit(self, writes: Sequence[p.Write], now_ms: int) -> p.Committed:
        down = self._no_engine()
        try:
            committed = await self._store.commit(writes, now_ms)
        except Exception:
            self._paused = self._paused_now()  # it may have happened, and nobody heard of it
            raise
        self._look_at_claims(committed)
        for ending in committed.effects.endings:
            task = None if ending.answer is None else ending.answer.task
            if task is None or task.state is not TaskState.SUCCEEDED or task.attempt:
                continue
            if not down:
                self._found.append(f"{task.id} was answered without an engine, and one could serve")
            if task.degraded is None or ending.answer is None:
                self._found.append(f"{task.id} was answered without an engine, and is not marked")
        return committed

    def _look_at_claims(self, committed: p.Committed) -> None:
        """Nothing of a queue is begun from the commit that pauses it to the one that resumes it,
        and nothing that would wait is taken into one that is drained.
        """
        changed = committed.effects.paused
        for name in changed:
            self._paused.pop(name, None)
        for result in committed.results:
            several = cast("tuple[object, ...]", result) if isinstance(result, tuple) else ()
            for each in several:
                if isinstance(each, p.ClaimedTask) and self._paused.get(each.lane[0]) is False:
                    self._found.append(f"{each.id} was begun, and queue {each.lane[0]} is paused")
                if isinstance(each, Accepted) and each.task is not None and not each.duplicate:
                    task = each.task
                    if self._paused.get(task.queue) is True and not task.state.ended:
                        self._found.append(f"{task.id} was taken, and {task.queue} is drained")
        self._paused |= {name: now.draining for name, now in changed.items() if now is not None}

    def _paused_now(self) -> dict[str, bool]:
        rows = self._store.cx.execute("SELECT queue, draining FROM queue_paused")
        return {name: bool(draining) for name, draining in rows}

    async def impair(self, fault: p.Fault | None) -> None:
        await self._store.impair(fault)

    def _no_engine(self) -> bool:
        assert self.tree is not None
        engines = self.tree._engine_hosts.children  # pyright: ignore[reportPrivateUsage]
        return not any(engine.breaker.state is BreakerState.CLOSED for engine in engines)
