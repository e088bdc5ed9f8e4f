"""The actor loop: decide synchronously, act afterwards, lose only what was in hand."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from runtime.actor import Actor
from runtime.mailbox import Mailbox


class Notebook(Actor[str]):
    """Writes down what happens to it."""

    def __init__(self, mailbox: Mailbox[str], notes: list[str]) -> None:
        super().__init__(mailbox)
        self.notes = notes

    async def on_start(self) -> None:
        self.notes.append("start")

    async def on_stop(self) -> None:
        self.notes.append("stop")

    def handle(self, message: str) -> None:
        if message == "break":
            raise ValueError(message)
        self.notes.append(message)

    async def settle(self) -> None:
        self.notes.append("settle")


async def run_until_idle(actor: Actor[Any]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(actor.run, lambda: None)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_it_settles_once_for_all_messages_of_a_batch() -> None:
    mailbox, notes = Mailbox[str](10), list[str]()
    mailbox.put_nowait("one")
    mailbox.put_nowait("two")
    await run_until_idle(Notebook(mailbox, notes))
    assert notes == ["start", "settle", "one", "two", "settle", "stop"]


async def test_a_failure_stops_it_and_leaves_what_was_not_begun() -> None:
    mailbox, notes = Mailbox[str](10), list[str]()
    for message in ("one", "break", "two"):
        mailbox.put_nowait(message)
    with pytest.raises(ExceptionGroup):
        await Notebook(mailbox, notes).run(lambda: None)
    mailbox.restore("notebook")
    assert notes == ["start", "settle", "one", "stop"]
    assert mailbox.drain_nowait() == ["two"]


async def test_it_is_started_only_when_it_is_ready() -> None:
    mailbox, notes = Mailbox[str](10), list[str]()
    async with anyio.create_task_group() as group:
        group.start_soon(Notebook(mailbox, notes).run, lambda: notes.append("started"))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert notes[:3] == ["start", "started", "settle"]
