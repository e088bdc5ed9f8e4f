"""The one table of legal state changes. Whatever is not listed is refused and never stored.

scheduled ─┐      ┌────────────────▶ succeeded: answered without an engine
blocked ───┼─▶ pending ─▶ running ─▶ succeeded
paused ◀───┤    ▲ ▲ ▲        │
archived ◀─┘    │ │ │        │         paused also from retrying
                │ │ └────────┤ put back, uncharged
                │ └ retrying ◀┤
        retried └──── dead ◀──┤      dead ─▶ cancelled: discarded
                              └─▶ cancelled, expired   (from every state that has not ended)

From a state in which it waits to the same: a person edited it.
What has ended stays as it is, but for a dead letter that a person retries or discards.
"""

from __future__ import annotations

from autoglm.types import TaskState as S

WAITING = (S.SCHEDULED, S.BLOCKED, S.PAUSED, S.ARCHIVED, S.PENDING, S.RETRYING)

LEGAL: frozenset[tuple[S | None, S]] = frozenset(
    {
        (None, S.PENDING),
        (None, S.BLOCKED),
        (None, S.SCHEDULED),
        (S.SCHEDULED, S.PENDING),
        (S.BLOCKED, S.PENDING),
        (S.PENDING, S.PAUSED),
        (S.RETRYING, S.PAUSED),
        (S.PAUSED, S.PENDING),
        (S.PENDING, S.ARCHIVED),
        (S.ARCHIVED, S.PENDING),
        (S.RETRYING, S.PENDING),
        (S.PENDING, S.RUNNING),
        (S.PENDING, S.SUCCEEDED),
        (S.RUNNING, S.SUCCEEDED),
        (S.RUNNING, S.PENDING),
        (S.RUNNING, S.RETRYING),
        (S.RUNNING, S.DEAD),
        (S.DEAD, S.PENDING),
        (S.DEAD, S.CANCELLED),
        *((state, S.CANCELLED) for state in (*WAITING, S.RUNNING)),
        *((state, S.EXPIRED) for state in (*WAITING, S.RUNNING)),
        *((state, state) for state in WAITING),
    }
)


def legal(before: S | None, after: S) -> bool:
    return (before, after) in LEGAL
