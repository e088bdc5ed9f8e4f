"""What the scheduler asks the store. Part of `runtime.store.protocol`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from runtime.store.protocol import Key, Lane, Query


class LaneRead(NamedTuple):
    """A lane's pending tasks after `after`; None: from its head on."""

    lane: Lane
    after: Key | None


class FetchBacklog(Query, frozen=True):
    """Result: `Found`."""

    reads: tuple[LaneRead, ...]
    limit: int


class Found(NamedTuple):
    keys: tuple[tuple[Key, ...], ...]
    """The first `limit` of each of the reads, in order."""
    begins: dict[int, int]
    """What they begin with, by task number, where others may begin alike."""


class FetchSchedule(Query, frozen=True):
    """Result: `Schedule`."""


class Schedule(msgspec.Struct, frozen=True):
    """What a scheduler that knows nothing has to know."""

    heads: dict[Lane, Key]
    """The lanes in which tasks are pending, each with its first."""
    running: dict[int, Lane]
    """By task number."""
