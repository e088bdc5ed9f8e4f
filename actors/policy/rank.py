"""What runs first in a lane: one number a task, fixed at submission. Pure but for what is learned.

`rank = logical time + priority x one hour - boost`, smaller first. Since later tasks get later
times, a task that waits overtakes more urgent ones that come long after it: priority ages without a
row being rewritten, and nobody starves. Priority 9 waits at most nine hours longer than priority 0.

The boost moves a task forward whose answer is expected to be short, by less than what a level of
priority is worth; see `actors.policy.lengths` for what it is and how it is bounded. Only
`scheduler.policy` mlfq has it.

A soft deadline is a rank of its own: as it draws near the task passes everything that is newer,
and once it is overdue it goes before all that was submitted after the deadline.
"""

from __future__ import annotations

from actors.policy.lengths import Lengths
from actors.policy.locality import beginning
from autoglm.given import priority_of
from autoglm.types import Message, TaskSpec
from runtime.store.protocol import Answered
from runtime.store.transaction import Ranking

HOUR_MS = 3_600_000


class ByArrival:
    """In order of submission alone."""

    def rank(self, _task: TaskSpec, logical_ms: int) -> int:
        return logical_ms

    def beginning(self, _task: TaskSpec) -> int | None:
        return None

    def answered(self, _answered: Answered) -> None:
        pass


class ByPriority:
    """By priority, age and deadline."""

    def rank(self, task: TaskSpec, logical_ms: int) -> int:
        rank = logical_ms + priority_of(task) * HOUR_MS - self.boost_ms(task)
        return rank if task.deadline_at is None else min(rank, task.deadline_at)

    def boost_ms(self, _task: TaskSpec) -> int:
        return 0

    def beginning(self, task: TaskSpec) -> int | None:
        return beginning(task)

    def answered(self, _answered: Answered) -> None:
        pass


class ByLength(ByPriority):
    """The same, and what is expected to be short passes what is long."""

    def __init__(self) -> None:
        self.lengths = Lengths()
        """Used by whoever ranks and records: the store's writing thread alone."""

    def boost_ms(self, task: TaskSpec) -> int:
        chars = prompt_chars(task.messages, task.prompt)
        return self.lengths.boost_ms(task.tenant, task.kind, chars, task.sampling.max_tokens)

    def answered(self, answered: Answered) -> None:
        self.lengths.ended(
            answered.tenant,
            answered.kind,
            answered.prompt_chars,
            answered.tokens,
            answered.age_ms,
        )


def ranker(policy: str) -> Ranking:
    """The ranking of `scheduler.policy`."""
    if policy == "fifo":
        return ByArrival()
    return ByLength() if policy == "mlfq" else ByPriority()


def prompt_chars(messages: tuple[Message, ...], prompt: str | None) -> int:
    """How long a prompt is, before it meets a tokenizer."""
    return len(prompt) if prompt is not None else sum(len(each.content) for each in messages)
