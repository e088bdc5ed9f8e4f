"""What runs, for whom, and what it is expected to take. Pure.

A task is charged to its lane when it is chosen, with what a task of that lane took so far on
average, because waiting for the true figure would let a lane take every slot first. When it ends
the difference is made good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from autoglm.types import Usage
from runtime.store.protocol import Lane

INPUT_WEIGHT, OUTPUT_WEIGHT = 1, 2
"""What a token of prompt and one of answer count: an output token takes a step of its own, prompts
are computed many tokens at a time (Sheng et al., OSDI 2024, use the same two).
"""
TASK_TOKENS = 256.0
"""What a task is expected to take as long as none has ended."""
_LEARN = 0.1
"""How much the newest task counts in a lane's mean."""
LANES_MAX = 16_384
"""Lanes whose means are remembered."""


def weighted(usage: Usage) -> float:
    """The service that an attempt got: prompt tokens found in the cache took none."""
    prompt = usage.prompt_tokens - usage.cached_tokens
    return INPUT_WEIGHT * prompt + OUTPUT_WEIGHT * usage.completion_tokens


class Charge(NamedTuple):
    lane: Lane
    tokens: float


class Running:
    def __init__(self) -> None:
        self._charges: dict[int, Charge] = {}
        self._left: set[int] | None = None
        """What left while the store is being asked what runs: its answer may be older."""
        self.in_queue: Counter[str] = Counter()
        self.of_tenant: Counter[str] = Counter()
        self._means: dict[Lane, float] = {}
        self._mean = TASK_TOKENS

    def begin(self, seq: int, lane: Lane) -> float:
        """Task `seq` is about to be claimed. Returns what it is expected to take."""
        tokens = self._means.get(lane, self._mean)
        self._enter(seq, Charge(lane, tokens))
        return tokens

    def end(self, seq: int, usage: Usage) -> Charge | None:
        """It no longer runs. Returns what is still to be charged for it; None: it was unknown."""
        if self._left is not None:
            self._left.add(seq)
        charge = self._charges.pop(seq, None)
        if charge is None:
            return None
        self._leave(charge.lane)
        took = weighted(usage)
        if took:
            self._learn(charge.lane, took)
        return Charge(charge.lane, took - charge.tokens)

    def forget(self, keep: Iterable[int]) -> None:
        """Ends were missed: the store is being asked what runs. `keep` are claims under way."""
        self._charges = {seq: self._charges[seq] for seq in keep if seq in self._charges}
        self.in_queue = Counter(charge.lane[0] for charge in self._charges.values())
        self.of_tenant = Counter(charge.lane[1] for charge in self._charges.values())
        self._left = set()

    def learned(self, running: Mapping[int, Lane]) -> None:
        """The store's answer. What was begun before this is charged when it ends."""
        left, self._left = self._left or set[int](), None
        for seq, lane in running.items():
            if seq not in left and seq not in self._charges:
                self._enter(seq, Charge(lane, 0.0))

    def lanes(self) -> dict[Lane, int]:
        """How many run of each lane."""
        return dict(Counter(charge.lane for charge in self._charges.values()))

    def __contains__(self, seq: int) -> bool:
        return seq in self._charges

    def __len__(self) -> int:
        return len(self._charges)

    def __repr__(self) -> str:
        return f"<Running {len(self._charges)} of {len(self.of_tenant)} tenants>"

    def _enter(self, seq: int, charge: Charge) -> None:
        self._charges[seq] = charge
        queue, tenant = charge.lane
        self.in_queue[queue] += 1
        self.of_tenant[tenant] += 1

    def _leave(self, lane: Lane) -> None:
        queue, tenant = lane
        self.in_queue[queue] -= 1
        if not self.in_queue[queue]:
            del self.in_queue[queue]
        self.of_tenant[tenant] -= 1
        if not self.of_tenant[tenant]:
            del self.of_tenant[tenant]

    def _learn(self, lane: Lane, took: float) -> None:
        self._mean += _LEARN * (took - self._mean)
        mean = self._means.pop(lane, self._mean)
        self._means[lane] = mean + _LEARN * (took - mean)
        if len(self._means) > LANES_MAX:
            del self._means[next(iter(self._means))]  # the one that learned least lately
