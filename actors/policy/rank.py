"""What runs first: one number a task, fixed at submission. Pure.

`rank = logical time + priority x one hour`, smaller first. Since later tasks get later times, a
task that waits overtakes more urgent ones that come long after it: priority ages without a row
being rewritten, and nobody starves. Priority 9 waits at most nine hours longer than priority 0.

A soft deadline is a rank of its own: as it draws near the task passes everything that is newer,
and once it is overdue it goes before all that was submitted after the deadline.
"""

from __future__ import annotations

from collections.abc import Callable

from autoglm.given import priority_of
from autoglm.types import TaskSpec

HOUR_MS = 3_600_000


def ranker(policy: str) -> Callable[[TaskSpec, int], int]:
    """The ranking of `scheduler.policy`: `priority`, or `fifo` for order of submission alone."""
    return _by_arrival if policy == "fifo" else _by_priority


def _by_priority(task: TaskSpec, logical_ms: int) -> int:
    rank = logical_ms + priority_of(task) * HOUR_MS
    return rank if task.deadline_at is None else min(rank, task.deadline_at)


def _by_arrival(_task: TaskSpec, logical_ms: int) -> int:
    return logical_ms
