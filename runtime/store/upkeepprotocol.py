"""What the store is asked to remove, finish and remember for the server. Part of
`runtime.store.protocol`.
"""

from __future__ import annotations

import msgspec

from runtime.store.protocol import Query, Write

Place = tuple[int, int]
"""How far a walk over the store is; opaque to whoever hands it back."""


class PruneTasks(Write, frozen=True):
    """Remove a slice of what ended before `before` (Unix ms): tasks with all that belongs to them,
    and whole jobs. Result: `Pruned`.
    """

    before: int
    after: Place = (0, 0)


class PruneEvents(Write, frozen=True):
    """Remove a slice of the events before `before` of tasks that have ended. Result: `Pruned`."""

    before: int
    after: Place = (0, 0)


class DoChore(Write, frozen=True):
    """A slice of what an earlier write left to do. Result: bool, whether there is more."""


class Pruned(msgspec.Struct, frozen=True):
    """How many of each were removed; `next` None: nothing is left to remove."""

    tasks: int
    results: int
    events: int
    jobs: int
    next: Place | None


class RememberBreaker(Write, frozen=True):
    """What is to be known of an engine's breaker at the next start. Result: None."""

    breaker: KeptBreaker


class KeptBreaker(msgspec.Struct, frozen=True):
    """`trips` 0: it is closed, and `open_until` (Unix ms) means nothing."""

    engine: str
    what: str
    """The engine's kind and model."""
    trips: int
    open_until: int


class FetchBreakers(Query, frozen=True):
    """Result: `tuple[KeptBreaker, ...]`, of the engines whose breakers are not closed."""
