"""One request on its way through an engine, as the batcher and the hosted engine share it."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from model.engine import Completion, EngineRequest

T = TypeVar("T")


class Lost(msgspec.Struct, frozen=True):
    """The request was in the engine when its host died; nothing is known of it."""

    reason: str


class Flight(Generic[T]):
    """One request in the engine, with the task it is for and, once it is over, how it ended."""

    __slots__ = ("ended", "request", "task", "trial")

    def __init__(self, request: EngineRequest, task: T, *, trial: int = 0) -> None:
        self.request = request
        self.task = task
        self.trial = trial
        """How many suspects it was sent with, itself included, while nothing else is in the
        engine; 0: it is not on trial.
        """
        self.ended: Completion | Lost | None = None
