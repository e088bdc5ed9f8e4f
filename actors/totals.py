"""What a batcher has sent since the server started; outlives its instances."""

from __future__ import annotations

from collections import Counter

from actors.failures import Failures
from actors.policy.staging import Batch
from actors.preempting import Preemption
from runtime.actor import Statistics


class BatcherStatistics(Statistics, frozen=True):
    staged: int
    flying: int
    batches: int
    requests: int
    triggers: dict[str, int]


class Totals:
    def __init__(self) -> None:
        self._terms = 0
        self.batches = 0
        self.requests = 0
        self.triggers: Counter[str] = Counter()
        self.preemption = Preemption()
        self.failures = Failures()

    def new_term(self) -> int:
        """A number for one instance of the batcher."""
        self._terms += 1
        return self._terms

    def sent(self, batch: Batch) -> None:
        self.batches += 1
        self.requests += len(batch.tasks)
        self.triggers[batch.trigger] += 1

    def statistics(self, staged: int, flying: int) -> BatcherStatistics:
        return BatcherStatistics(staged, flying, self.batches, self.requests, dict(self.triggers))
