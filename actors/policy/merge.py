"""When the batcher sends what it has, and how much of it. Pure.

A batch goes out when it is full, when its oldest request has waited the window, or at once when
the engine is idle, because nobody gains from waiting then. Priorities 0 and 1 never wait. What had
to wait for a slot goes as soon as one frees: the window is for new arrivals only.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from runtime.store.protocol import URGENT_PRIORITY, ClaimedTask, Key


class Trigger(StrEnum):
    """What sent a batch."""

    SIZE = "size"  # it was full
    WINDOW = "window"  # its oldest request had waited long enough
    IDLE = "idle"  # the engine had nothing to do
    SLOT = "slot"  # a slot freed for a request that had waited for one
    URGENT = "urgent"  # it holds a priority that never waits
    TRIAL = "trial"  # suspects of killing the engine, and nobody else


class Staged(msgspec.Struct):
    """A claimed task that is not in the engine yet. Times are monotonic seconds."""

    task: ClaimedTask
    since: float
    blocked: bool = False
    """It has met a full engine."""
    run: Key | None = None
    """The key of the first of the run it belongs to; None: it stands by itself."""

    @property
    def order(self) -> tuple[Key, Key]:
        key = (self.task.rank, self.task.seq)
        return self.run or key, key


class Dispatch(msgspec.Struct, frozen=True):
    trigger: Trigger
    count: int
    """So many from the head of the staged tasks."""


def decide(
    staged: Sequence[Staged], free: int, flying: int, now: float, window_s: float, size_max: int
) -> Dispatch | None:
    """The batch to send now from `staged` (in order of rank), or None: wait.

    `free` slots stand empty, `flying` requests run.
    """
    if not staged or free <= 0:
        return None
    room = min(free, size_max)
    count = min(len(staged), room)
    head = staged[:count]
    if flying == 0:
        trigger = Trigger.IDLE
    elif count == room:
        trigger = Trigger.SIZE
    elif any(each.blocked for each in head):
        trigger = Trigger.SLOT
    elif any(each.task.priority <= URGENT_PRIORITY for each in head):
        trigger = Trigger.URGENT
    elif now - min(each.since for each in head) >= window_s:
        trigger = Trigger.WINDOW
    else:
        return None
    return Dispatch(trigger, count)


def prefix_order(task: ClaimedTask) -> str:
    """Sorts a batch so that shared beginnings stand together, for the engine's prefix cache."""
    if task.prompt is not None:
        return task.prompt
    return "\0".join(message.content for message in task.messages)
