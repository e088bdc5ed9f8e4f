"""Shared beginnings run together, as far as nobody is wronged by it. Pure.

An engine computes a beginning that it has just seen no second time, and what it remembers is
bounded: tasks that share a long one should follow each other. So within a lane, and there among
tasks whose ranks differ by no more than `SPAN_MS`, who shares the beginning of the one whose turn
it is goes right after it. Queue, tenant and rank come before that:

- a lane gives as many tasks at its turns as ever, only which of them is another question;
- nobody is passed by a task whose rank is more than `SPAN_MS` worse: one that was handed in more
  than so much later at the same priority, or at a less urgent one (a level is an hour);
- a run is made of those that are there when it begins, and then it is the first one's turn again.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from autoglm.types import TaskSpec
from runtime.store.protocol import ClaimedTask, Key, Lane

SPAN_MS = 10_000
"""Ranks that differ by no more count as equal. A file is handed in faster than so."""
SHARED_CHARS = 256
"""What is shorter is not worth it: engines remember blocks of 16 tokens and more."""


def beginning(task: TaskSpec | ClaimedTask) -> int | None:
    """A number for what the task begins with, the same for those that begin alike: its system
    message, or, without one, its first `SHARED_CHARS` characters. None: that is too short.
    """
    if task.prompt is not None:
        text = task.prompt[:SHARED_CHARS]
    elif task.messages and task.messages[0].role == "system":
        text = task.messages[0].content
    else:
        text = task.messages[0].content[:SHARED_CHARS] if task.messages else ""
    return crc32(text.encode(errors="surrogatepass")) if len(text) >= SHARED_CHARS else None


class Runs:
    """Which of the tasks that were claimed one after the other, of one lane, are a run: they begin
    alike, and rank as equals of the first of them.
    """

    def __init__(self) -> None:
        self._last: dict[Lane, tuple[int, Key]] = {}
        """Of what was claimed last of each lane: its beginning, and the first of its run."""

    def joined(self, task: ClaimedTask) -> Key | None:
        """The key of the first of the run that `task`, which was claimed just now, belongs to;
        None: to none.
        """
        begins = beginning(task)
        if begins is None:
            self._last.pop(task.lane, None)
            return None
        key = (task.rank, task.seq)
        before, first = self._last.get(task.lane, (None, key))
        if before != begins or not first <= key <= (first[0] + SPAN_MS, task.seq):
            first = key
        self._last[task.lane] = (begins, first)
        return first

    def keep(self, lanes: Iterable[Lane]) -> None:
        """Only these lanes are still of interest."""
        self._last = {lane: self._last[lane] for lane in lanes if lane in self._last}
