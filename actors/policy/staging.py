"""What a batcher has claimed and not sent yet, and what it sends next. Pure: no I/O, no clock.

Two lines wait: suspects of killing the engine, and all others. `actors.policy.poison` says whose
turn it is, `actors.policy.merge` when a batch of the others goes. Times are monotonic seconds.

The places in a line are taken in the order of claims, because that is what the shares of queues and
tenants are; who of a lane takes which of its places is decided by rank, so that what is claimed
ahead costs no priority, and a run of tasks that begin alike (`actors.policy.locality`) stays one.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

import msgspec

from actors.policy.locality import Runs
from actors.policy.merge import Staged, Trigger, decide, prefix_order
from actors.policy.poison import Turn, is_suspect, trial_size, whose_turn
from runtime.config import BatchConfig
from runtime.store.protocol import URGENT_PRIORITY, ClaimedTask, Lane

LOOKAHEAD = 0.25
"""Tasks claimed beyond the engine's slots, as a share of them."""


class Batch(msgspec.Struct, frozen=True):
    """What goes into the engine together, shared beginnings side by side."""

    trigger: Trigger
    tasks: tuple[ClaimedTask, ...]

    @property
    def trial(self) -> int:
        """How many are on trial: all or none."""
        return len(self.tasks) if self.trigger is Trigger.TRIAL else 0


class Staging:
    def __init__(self, config: BatchConfig, *, lanes: bool = True) -> None:
        """`lanes` False: rank alone decides, as if all were of one lane."""
        self._lanes = lanes
        self._window_s = config.window_ms / 1000
        self._size_max = config.max_size
        self._suspects: list[Staged] = []
        self._others: list[Staged] = []
        """Both in the order in which they are to run."""
        self._runs = Runs()
        self._served = 0
        """Others that were sent since suspects were on trial."""
        self.on_trial = False
        """Whether what is in the engine are suspects: nobody joins them."""
        self.wake_at: float | None = None
        """When to ask `next_batch` again though nothing has happened."""

    def __len__(self) -> int:
        return len(self._suspects) + len(self._others)

    def __repr__(self) -> str:
        return f"<Staging {len(self._suspects)} suspects, {len(self._others)} others>"

    def add(self, tasks: Iterable[ClaimedTask], now: float, *, first: bool = False) -> None:
        """`first`: before all others, those who are suspects apart."""
        for task in tasks:
            staged = Staged(task, now, run=self._runs.joined(task) if self._lanes else None)
            if is_suspect(task.deaths):
                self._suspects.append(staged)
            elif first:
                self._others.insert(0, staged)
            else:
                self._others.append(staged)
        self._runs.keep(staged.task.lane for staged in self._others)
        for line in (self._suspects, self._others):
            line[:] = self._by_rank_in_lanes(line)

    def remove(self, seqs: Iterable[int]) -> None:
        gone = set(seqs)
        for line in (self._suspects, self._others):
            line[:] = [staged for staged in line if staged.task.seq not in gone]

    def clear(self) -> list[ClaimedTask]:
        """All that waited."""
        waited = [staged.task for staged in (*self._suspects, *self._others)]
        self._suspects, self._others = [], []
        return waited

    @property
    def urgent(self) -> int:
        """How many wait that are urgent and no suspects."""
        return sum(staged.task.priority <= URGENT_PRIORITY for staged in self._others)

    @property
    def urgent_first(self) -> list[ClaimedTask]:
        """The urgent ones at the head of the line: whose slot frees now, frees for them."""
        tasks = (staged.task for staged in self._others)
        return list(takewhile(lambda task: task.priority <= URGENT_PRIORITY, tasks))

    def room(self, slots: int) -> int:
        """How many more to claim, beyond those in the engine.

        As many suspects as there are slots take no room, lest the others see no engine while
        those are tried.
        """
        target = slots + max(1, int(slots * LOOKAHEAD))
        return target - len(self._others) - max(0, len(self._suspects) - slots)

    def next_batch(self, slots: int, flying: int, now: float) -> Batch | None:
        """What is to be sent now, when `flying` of the engine's `slots` are taken; it is gone from
        here then. None: wait for an event, or until `wake_at`.
        """
        self.wake_at = None
        if not flying:
            self.on_trial = False
        turn = Turn.NOBODY if self.on_trial else self._turn(slots, flying, now)
        if turn is Turn.TRIAL:
            self.on_trial, self._served = True, 0
            size = trial_size([staged.task.deaths for staged in self._suspects], slots)
            return Batch(Trigger.TRIAL, _take(self._suspects, size))
        free = max(0, slots - flying)
        if turn is Turn.OTHERS and self._others:
            size_max = self._size_max or max(1, free)
            sent = decide(self._others, free, flying, now, self._window_s, size_max)
            if sent is not None:
                self._served += sent.count
                return Batch(sent.trigger, _take(self._others, sent.count))
        if turn is Turn.NOBODY or not free:
            for staged in self._others:
                staged.blocked = True
        elif self._others:
            self._wake(min(staged.since for staged in self._others) + self._window_s)
        return None

    def _turn(self, slots: int, flying: int, now: float) -> Turn:
        """Suspects wait the window, so that others who are there come first."""
        if not self._suspects:
            return Turn.OTHERS
        settled_at = max(staged.since for staged in self._suspects) + self._window_s
        settled = now >= settled_at
        if not (settled or flying):
            self._wake(settled_at)
        suspects, others = len(self._suspects), len(self._others)
        return whose_turn(suspects, others, self._served, slots, flying, settled=settled)

    def _by_rank_in_lanes(self, line: list[Staged]) -> list[Staged]:
        by_rank = sorted(line, key=lambda staged: staged.order)
        if not self._lanes:
            return by_rank
        of_lane: dict[Lane, list[Staged]] = {}
        for staged in reversed(by_rank):
            of_lane.setdefault(staged.task.lane, []).append(staged)
        return [of_lane[staged.task.lane].pop() for staged in line]

    def _wake(self, at: float) -> None:
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)


def _take(line: list[Staged], count: int) -> tuple[ClaimedTask, ...]:
    """Remove the first `count` of a line."""
    tasks = [staged.task for staged in line[:count]]
    del line[:count]
    return tuple(sorted(tasks, key=prefix_order))
