"""What failed lately, for whoever looks at the status: some attempts of one engine, in memory.

A part of the batchers' totals, so it outlives a batcher and not the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from autoglm.status import RecentFailure
from autoglm.text import one_line
from autoglm.types import ErrorInfo, TaskState
from model.flight import Flight, Lost
from runtime.store.protocol import ClaimedTask, Outcome

KEPT = 10
MESSAGE_CHARS_MAX = 500
ENGINE_DIED = "engine_died"
"""The code of an attempt that ended with its engine, and goes back uncharged."""


class Failures:
    def __init__(self) -> None:
        self._recent: dict[tuple[str, int], RecentFailure] = {}
        """By task id and attempt, oldest first."""

    @property
    def recent(self) -> Sequence[RecentFailure]:
        """Oldest first."""
        return list(self._recent.values())

    def note(
        self,
        engine: str,
        flights: Sequence[Flight[ClaimedTask]],
        outcomes: Sequence[Outcome],
        at: int,
    ) -> None:
        """These ended so, at `at` (Unix ms). Again: it counts once. What went back together when
        the engine died is one failure, told of the first of them.
        """
        lost: Flight[ClaimedTask] | None = None
        for flight, outcome in zip(flights, outcomes, strict=True):
            if outcome.error is not None:
                self._note(engine, flight.task, outcome.error, outcome.state, at)
            elif isinstance(flight.ended, Lost) and lost is None:
                lost = flight
                error = ErrorInfo(ENGINE_DIED, flight.ended.reason)
                self._note(engine, flight.task, error, outcome.state, at)
        for old in list(islice(self._recent, max(0, len(self._recent) - KEPT))):
            del self._recent[old]

    def _note(
        self, engine: str, task: ClaimedTask, error: ErrorInfo, state: TaskState, at: int
    ) -> None:
        queue, tenant = task.lane
        message = one_line(error.message, MESSAGE_CHARS_MAX)
        told = (task.id, tenant, queue, task.attempt, at, error.code, message, state.value, engine)
        self._recent.setdefault((task.id, task.attempt), RecentFailure(*told))
