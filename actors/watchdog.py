"""The watchdog: tells the service manager that the server works, for as long as it does.

Owns nothing. In each round it wakes every actor and waits until each has finished what it was at
and gone on to what is next, while the store answers a read. Only then the manager is told: so if
any one of them is stuck, or the event loop is, no word goes out and the server is started anew.
The first round that finds all of them running says that the server is ready.

Not stuck, because another start would not help: who is held by an open breaker, and those that
wait for a store which is blocked or damaged, as the persister and all who may wait for it do. An
engine has a watchdog of its own and is none of this one's business.

When it dies nothing is lost but the round.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import anyio

from autoglm.status import ServerStatus
from runtime import sdnotify
from runtime.actor import Statistics
from runtime.clock import Clock
from runtime.sdnotify import ServiceManager
from runtime.store.health import Health
from runtime.store.protocol import Store, StoreError
from runtime.store.upkeepprotocol import FetchBreakers
from runtime.supervision import ChildState, Supervised

log = logging.getLogger("autoglm.watchdog")

LOOK_S = 0.02
"""How often it looks whether all have come."""
PAUSE_S = 10.0
"""Between two rounds where the manager does not mind; what is told then is the status."""
ROUNDS = 3
"""In the time that the manager waits: one that takes long is no reason to end us."""


class WatchdogStatistics(Statistics, frozen=True):
    rounds: int
    behind: tuple[str, ...]
    """Those that the present round waits for."""


class Watchdog:
    def __init__(
        self,
        actors: Sequence[Supervised],
        waiting_for_store: Sequence[Supervised],
        store: Store,
        health: Health,
        server: Callable[[], ServerStatus],
        manager: ServiceManager,
        clock: Clock,
    ) -> None:
        """`waiting_for_store`: those of `actors` that may wait for a commit."""
        self._actors = actors
        self._waiting_for_store = waiting_for_store
        self._store = store
        self._health = health
        self._server = server
        self._manager = manager
        self._clock = clock
        limit_s = manager.watchdog_s
        self._pause_s = PAUSE_S if limit_s is None else limit_s / ROUNDS
        self._ready = False
        self._told = ""
        """The status that the manager has."""
        self._rounds = 0
        self._reading = False
        """Whether the store has not answered yet."""
        self._missing: list[Supervised] = []
        """Who has not come yet."""

    async def run(self, started: Callable[[], None]) -> None:
        started()
        while True:
            await self._round()
            self._rounds += 1
            if not self._ready and self._all_run():
                self._ready = True
                self._manager.notify(sdnotify.READY)
            if not self._ready:
                await self._clock.sleep(LOOK_S)
                continue
            if self._manager.watchdog_s is not None:
                self._manager.notify(sdnotify.ALIVE)
            self._tell(self._state())
            await self._clock.sleep(self._pause_s)

    def statistics(self) -> WatchdogStatistics:
        return WatchdogStatistics(self._rounds, self._behind())

    async def _round(self) -> None:
        """Until all have come and the store has answered. For ever, if one of them is stuck."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._report_late)
            async with anyio.create_task_group() as both:
                both.start_soon(self._read)
                both.start_soon(self._meet)
            group.cancel_scope.cancel()

    async def _read(self) -> None:
        self._reading = True
        with contextlib.suppress(StoreError):  # an answer all the same
            await self._store.query(FetchBreakers())
        self._reading = False

    async def _meet(self) -> None:
        before = {child: _visits(child) for child in self._actors}
        for child in self._actors:
            child.spec.mailboxes[0].bell.ring()
        missing = list(self._actors)
        while missing := [
            child
            for child in missing
            if _visits(child) == before[child] and self._is_expected(child)
        ]:
            self._missing = missing
            await self._clock.sleep(LOOK_S)
        self._missing = []

    def _is_expected(self, child: Supervised) -> bool:
        if child.instance is None or child.state in (ChildState.HELD, ChildState.STOPPED):
            return False  # held, or it goes with one that is
        return self._health.trouble is None or child not in self._waiting_for_store

    async def _report_late(self) -> None:
        await self._clock.sleep(self._pause_s)
        names = ", ".join(self._behind())
        log.error("stuck: %s", names)
        self._tell(f"stuck: {names}")

    def _behind(self) -> tuple[str, ...]:
        names = tuple(child.spec.name for child in self._missing)
        return ("the store", *names) if self._reading else names

    def _all_run(self) -> bool:
        return all(child.state is ChildState.RUNNING for child in self._actors)

    def _state(self) -> str:
        server = self._server()
        if server.trouble is not None:
            return f"nothing is accepted: {server.trouble}"
        return "accepts tasks" if server.state == "running" else server.state

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            self._manager.notify(sdnotify.status(text))


def _visits(child: Supervised) -> int:
    return child.spec.mailboxes[0].bell.visits
