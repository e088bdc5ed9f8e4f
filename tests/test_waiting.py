"""The register of who waits for what."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from actors.connection import Connection
from actors.waiting import JobWaiter, Waiter, Waiting
from autoglm.wire import GetJobLines, Request
from tests.simulation.net import MemoryStream, pair
from tests.simulation.world import Universe

Connections = Iterator[Connection]


@pytest.fixture
def connections() -> Generator[Connections]:
    """Any number of connections, over streams that nobody uses."""
    universe = Universe(0)

    def make() -> Connections:
        while True:
            near, _ = pair(universe, "pair", 0.0)
            yield Connection(MemoryStream(near, universe.rng("near")), _ignore)

    yield make()
    universe.loop.close()


def _ignore(_: Connection, __: Request) -> None:
    """Requests are no matter here."""


def wait(waiting: Waiting, task: str, who: Connection, rid: int, *, chunks: bool = False) -> None:
    waiting.add(task, Waiter(who, rid, chunks=chunks))
    who.watching.setdefault(rid, set()).add(task)


def rids(waiters: list[Waiter]) -> list[int]:
    return [waiter.rid for waiter in waiters]


def test_those_who_wait_for_a_task_are_taken_once(connections: Connections) -> None:
    waiting, one, two = Waiting(), next(connections), next(connections)
    wait(waiting, "a", one, 1)
    wait(waiting, "a", two, 2)
    assert waiting.wanted("a")
    assert not waiting.wanted("x")
    assert rids(waiting.take("a")) == [1, 2]
    assert waiting.take("a") == []


def test_who_has_left_is_told_nothing(connections: Connections) -> None:
    waiting, one = Waiting(), next(connections)
    wait(waiting, "a", one, 1)
    one.close()
    assert waiting.take("a") == []


def test_only_those_who_want_chunks_read_along(connections: Connections) -> None:
    waiting, one = Waiting(), next(connections)
    wait(waiting, "a", one, 1)
    wait(waiting, "a", one, 2, chunks=True)
    assert rids(list(waiting.readers("a"))) == [2]


def test_a_request_that_is_dropped_waits_for_nothing(
    connections: Connections,
) -> None:
    waiting, one = Waiting(), next(connections)
    wait(waiting, "a", one, 1)
    wait(waiting, "b", one, 1)
    wait(waiting, "a", one, 2)
    waiting.drop(one, 1)
    assert waiting.tasks() == ["a"]
    assert rids(waiting.take("a")) == [2]


def test_a_connection_that_is_gone_leaves_nothing_behind(connections: Connections) -> None:
    waiting, one = Waiting(), next(connections)
    wait(waiting, "a", one, 1)
    waiting.add_job(JobWaiter(one, GetJobLines(2, "job")))
    waiting.forget(one)
    assert repr(waiting) == "<Waiting 0 tasks, 0 jobs>"
    assert (waiting.tasks(), waiting.jobs()) == ([], [])
