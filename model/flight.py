"""One request on its way through an engine, as the batcher and the hosted engine share it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from autoglm.types import ErrorInfo
from model.engine import GIVEN_UP, Completion, EngineRequest, Kept
from runtime.partial import Partial

T = TypeVar("T")


class Lost(msgspec.Struct, frozen=True):
    """The request was in the engine when its host died; nothing is known of it."""

    reason: str


class Flight(Generic[T]):
    """One request in the engine, with the task it is for and, once it is over, how it ended."""

    __slots__ = ("ended", "partial", "request", "since", "stopping", "task", "trial")

    def __init__(self, request: EngineRequest, task: T, *, trial: int = 0) -> None:
        self.request = request
        self.task = task
        self.trial = trial
        """How many suspects it was sent with, itself included, while nothing else is in the
        engine; 0: it is not on trial.
        """
        self.partial: Partial | None = None
        """How far it had come when it was last heard of."""
        self.since = 0.0
        """When it was submitted, in seconds of whoever did that."""
        self.stopping = False
        """It was asked to end for now."""
        self.ended: Completion | Lost | None = None


class Flights(Generic[T]):
    """All that one engine was given and whose outcome is not recorded, in the order given."""

    def __init__(self) -> None:
        self.running = 0
        """How many have not ended."""
        self._known: dict[str, Flight[T]] = {}
        self._ended: list[Flight[T]] = []
        """Those that ended since somebody last looked."""
        self._kept: dict[str, Flight[T]] = {}
        """Those of which a new `partial` came since somebody last looked."""

    def add(self, flights: Sequence[Flight[T]]) -> None:
        for flight in flights:
            known = self._known.get(flight.request.id)
            assert not known or known.ended, "two attempts of one task at once"
            self._known[flight.request.id] = flight
        self.running += len(flights)

    def get(self, id: str) -> Flight[T] | None:
        return self._known.get(id)

    def all(self) -> list[Flight[T]]:
        return list(self._known.values())

    def complete(self, completion: Completion) -> bool:
        """Whether this is the end of a request that runs: an older attempt's is nobody's."""
        flight = self._known.get(completion.id)
        if flight is None or flight.ended or flight.request.attempt != completion.attempt:
            return False
        self.end(flight, completion)
        return True

    def end(self, flight: Flight[T], ended: Completion | Lost) -> None:
        flight.ended = ended
        self.running -= 1
        self._ended.append(flight)

    def end_all(self, reason: str, innocent: Callable[[str], bool]) -> list[Flight[T]]:
        """End what runs. Returns those that may have been the cause: they are `Lost`, the others
        are given up.
        """
        lost: list[Flight[T]] = []
        for id, flight in self._known.items():
            if flight.ended is not None:
                continue
            if innocent(id):
                error = ErrorInfo(GIVEN_UP, reason)
                self.end(flight, Completion(id, flight.request.attempt, error=error))
            else:
                self.end(flight, Lost(reason))
                lost.append(flight)
        return lost

    def keep(self, kept: Sequence[Kept]) -> None:
        for each in kept:
            flight = self._known.get(each.id)
            if flight and not flight.ended and flight.request.attempt == each.attempt:
                flight.partial = each.partial
                self._kept[each.id] = flight

    def take_kept(self) -> list[Flight[T]]:
        kept, self._kept = self._kept, {}
        return [flight for flight in kept.values() if flight.ended is None]

    def take_ended(self) -> list[Flight[T]]:
        ended, self._ended = self._ended, []
        return ended

    def forget(self, ids: Sequence[str]) -> tuple[str, ...]:
        """Which of these have been running."""
        known = [flight for id in ids if (flight := self._known.pop(id, None)) is not None]
        running = tuple(flight.request.id for flight in known if flight.ended is None)
        self.running -= len(running)
        return running

    def release(self, flight: Flight[T]) -> None:
        if self._known.get(flight.request.id) is flight:
            del self._known[flight.request.id]
