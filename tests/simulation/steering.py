"""Somebody who pauses, resumes and requeues, and in the end lets everything go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

import anyio

from autoglm.client import Client
from runtime.queueconfig import QUEUES
from tests.simulation.people import History, Person, insist
from tests.simulation.plan import Plan
from tests.simulation.world import Universe

T = TypeVar("T")


class Steward:
    def __init__(self, universe: Universe, history: History, people: Sequence[Person]) -> None:
        self._rng = universe.rng("steward")
        self._ids = universe.ids("steward")
        self._history = history
        self._people = people

    async def live(self) -> None:
        rng = self._rng
        for _ in range(rng.randint(1, 6)):
            await anyio.sleep(rng.uniform(0, 1))
            deed = rng.choice([self._pause_tasks, self._pause_queue, self._pause_job, self._drain])
            await deed()
        while not all(person.done for person in self._people):
            await self._let_go()
            await anyio.sleep(1)

    async def _pause_tasks(self) -> None:
        ids = [id for id in self._history.prompts if self._rng.random() < 0.5]
        await self._insist(lambda client: client.pause(ids))

    async def _pause_queue(self) -> None:
        name = self._rng.choice(list(QUEUES))
        said = await self._insist(lambda client: client.pause_queue(name))
        if not said.paused:
            self._history.complain(f"queue {name} was paused, told {said}")
        await anyio.sleep(self._rng.uniform(0, 2))
        if self._rng.random() < 0.5:
            await self._insist(lambda client: client.resume_queue(name))

    async def _pause_job(self) -> None:
        for job in list(self._history.lines):
            await self._insist(lambda client, job=job: client.pause_job(job))
            await anyio.sleep(self._rng.uniform(0, 2))
            if self._rng.random() < 0.5:
                await self._insist(lambda client, job=job: client.resume_job(job))

    async def _drain(self) -> None:
        name = self._rng.choice(list(QUEUES))
        said = await self._insist(lambda client: client.drain_queue(name))
        if not said.draining or said.paused:
            self._history.complain(f"queue {name} was to be drained, told {said}")
        for job in list(self._history.lines):
            await self._insist(lambda client, job=job: client.drain_job(job))
        await anyio.sleep(self._rng.uniform(0, 2))
        for job in list(self._history.lines):
            await self._insist(lambda client, job=job: client.resume_job(job))

    async def _let_go(self) -> None:
        for name in QUEUES:
            await self._insist(lambda client, name=name: client.resume_queue(name))
        paused = await self._insist(lambda client: client.list("paused"))
        await self._insist(lambda client: client.resume([task.id for task in paused]))
        await self._insist(Client.requeue_all)

    async def _insist(self, call: Callable[[Client], Awaitable[T]]) -> T:
        return await insist(self._ids, call)


def wrong_with_waits(cx: sqlite3.Connection, plan: Plan) -> Iterator[str]:
    """Nothing is put aside or refused before it has waited for as long as its queue says."""
    for id, queue, state, waited in cx.execute(
        "SELECT t.id, t.queue, e.to_state, e.at - before.at FROM event e"
        " JOIN event before ON before.seq = e.prev JOIN task t ON t.seq = e.task"
        " WHERE e.from_state = 'pending' AND (e.to_state = 'archived'"
        " OR (e.to_state = 'expired' AND t.error ->> '$.code' = 'queue_wait'))"
    ):
        rule = plan.config.queues[queue]
        if rule.max_wait is None or waited < rule.max_wait.ms:
            yield f"{id} is {state} after {waited} ms in {queue}: {rule}"
