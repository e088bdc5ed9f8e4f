"""Removing what ended long ago, as a client says it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from autoglm import wire
from autoglm.errors import InvalidRequest
from autoglm.ids import Ids
from autoglm.session import Session
from autoglm.spec import span_s


class Removed(msgspec.Struct, frozen=True):
    """What is gone: how many of each."""

    tasks: int = 0
    results: int = 0
    events: int = 0
    jobs: int = 0


Report = Callable[[Removed], None]


class PruneCalls:
    """A part of `Client`."""

    _session: Session
    _ids: Ids

    async def prune(self, older_than: float | str, report: Report = lambda _: None) -> Removed:
        """Remove tasks with their answers and events, and whole jobs, that ended longer ago than
        `older_than` (seconds, or words such as `"30d"`). For the operator.

            async with Client(tenant=None) as operator:
                removed = await operator.prune("30d")
                print(removed.tasks, removed.jobs)

        The server removes a slice at a time, between other people's work; `report` hears of what
        is gone after each. Broken off, the same call removes the rest. Raises InvalidRequest.
        """
        seconds = span_s("older_than", older_than)
        if seconds is None:
            raise InvalidRequest("older_than: seconds, or words such as 30d")
        before = self._ids.now_ms() - int(seconds * 1000)
        removed, after = Removed(), (0, 0)
        while True:
            done = await self._session.call(wire.Prune(0, before, after), wire.Pruned)
            removed = Removed(
                removed.tasks + done.tasks,
                removed.results + done.results,
                removed.events + done.events,
                removed.jobs + done.jobs,
            )
            report(removed)
            if done.next is None:
                return removed
            after = done.next
