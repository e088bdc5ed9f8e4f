"""What can be asked of the store about dead letters, besides what `protocol` lists.

`tenant` is the reach of whoever asks (None: the operator's), `by` who it is, for the event log.
"""

from __future__ import annotations

import msgspec

from autoglm.deadletter import Content
from autoglm.wire import ListDead
from runtime.store.protocol import Query, Write


class Chosen(msgspec.Struct, frozen=True):
    """Dead letters: those of `ids`, and, with `every`, a slice of all that fit behind `after`."""

    tenant: str | None
    ids: tuple[str, ...] = ()
    every: bool = False
    of_tenant: str | None = None
    reason: str | None = None
    after: int = 0


class RetryDead(Write, frozen=True):
    """Dead -> pending, failures counted anew; what is not dead stays. Result: `Settled`."""

    chosen: Chosen
    by: str | None = None


class DiscardDead(Write, frozen=True):
    """Dead -> cancelled; what is not dead stays. Result: `Settled`."""

    chosen: Chosen
    by: str | None = None


class EditDead(Write, frozen=True):
    """Give a dead letter other content and retry it. Result: None.

    Raises NotFound, and Conflict when it is not dead or not at `attempt` any more; the same edit
    again changes nothing.
    """

    tenant: str | None
    id: str
    attempt: int
    content: Content
    by: str | None = None


class FetchDeadLetters(Query, frozen=True):
    """Result: `tuple[tuple[DeadLetter, ...], int | None]`, a page and the cursor of the next."""

    tenant: str | None
    filter: ListDead


class FetchDeadLetter(Query, frozen=True):
    """Result: `DeadLetterInFull`. Raises NotFound, and Conflict when the task is not dead."""

    tenant: str | None
    id: str
