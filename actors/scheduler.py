"""The scheduler: decides which tasks run next.

Owns the window on the backlog and what each batcher has room for. Accepts `TasksReady` from the
persister, `DemandWithdrawn` and `WantTasks` from batchers, and the answers to its claims and reads.
Emits claims to the persister and, after their commit, `TasksAssigned` to the batcher.

Claim before dispatch: no task reaches a batcher before the store says that it runs there. Demand
flows backwards: nothing is claimed that no batcher has room for.

When it dies nothing is lost: the backlog is in the store, and a batcher that starts after it asks
anew. Tasks claimed in its last moments are put back by their batcher, which misses them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, assert_never, cast

import msgspec

from actors.messages import (
    Ask,
    Commit,
    DemandWithdrawn,
    Drain,
    Refused,
    SchedulerMessage,
    TasksAssigned,
    TasksReady,
    WantTasks,
)
from actors.policy.window import Refill, Window
from runtime.actor import Actor, Statistics
from runtime.alarm import Alarm
from runtime.clock import Clock
from runtime.mailbox import ActorDied, Answered, Mailbox, Signal
from runtime.store.protocol import ClaimedTask, ClaimTasks, FetchBacklog, Key

CAPACITY = 4096
CLAIM_MAX = 256
"""Tasks in one claim: bounds the transaction that others share."""
PATIENCE_S = 0.02
"""How soon to try again where a mailbox was full."""


class _Claim(msgspec.Struct, frozen=True):
    """What a claim's answer belongs to."""

    batcher: str
    term: int
    count: int


class SchedulerStatistics(Statistics, frozen=True):
    window: int
    demand: dict[str, int]
    claiming: int


class Scheduler(Actor[SchedulerMessage]):
    def __init__(
        self,
        mailbox: Mailbox[SchedulerMessage],
        missed: Signal,
        persister: Mailbox[Commit],
        reader: Mailbox[Ask],
        batchers: dict[str, Mailbox[Any]],
        clock: Clock,
    ) -> None:
        super().__init__(mailbox)
        self._missed = missed
        """Set when the persister had news for us and our mailbox was full."""
        self._persister = persister
        self._reader = reader
        self._batchers = batchers
        self._clock = clock
        self._alarm = Alarm(clock, Signal(mailbox.bell))
        self.alarms.append(self._alarm)
        self._window = Window()
        self._demand: dict[str, int] = dict.fromkeys(batchers, 0)
        """What each batcher has room for and we have not claimed yet."""
        self._terms: dict[str, int] = dict.fromkeys(batchers, 0)
        """The instance of each batcher that the demand is of."""
        self._claiming = 0
        self._undelivered: dict[str, deque[TasksAssigned]] = {name: deque() for name in batchers}
        """Claimed, and not in the batcher's mailbox yet, which may be full."""
        self._draining = False

    def handle(self, message: SchedulerMessage) -> None:
        match message:
            case TasksReady(keys):
                self._window.arrived(keys)
            case WantTasks(batcher, term, count):
                earlier = self._demand[batcher] if term == self._terms[batcher] else 0
                self._terms[batcher] = term
                self._demand[batcher] = earlier + count
            case DemandWithdrawn(batcher):
                self._demand[batcher] = 0
            case Drain():
                self._draining = True
            case Answered(_Claim() as claim, answer):
                self._on_claimed(claim, answer)
            case Answered(Refill() as refill, answer):
                self._on_backlog(refill, answer)
            case Answered():
                raise TypeError(f"an answer to nothing we asked: {message!r}")
            case _:
                assert_never(message)

    def statistics(self) -> SchedulerStatistics:
        return SchedulerStatistics(len(self._window), dict(self._demand), self._claiming)

    async def settle(self) -> None:
        """Ask for what the decisions need: more of the backlog, and claims."""
        self._alarm.rang()
        self._deliver()
        if self._missed.take():
            self._window.lost_count()
        if self._draining:
            return
        self._refill()
        for batcher in sorted(self._demand, key=self._demand.__getitem__, reverse=True):
            while (count := min(self._demand[batcher], len(self._window), CLAIM_MAX)) > 0:
                keys = self._window.take(count)
                reply = self.mailbox.reserve(_Claim(batcher, self._terms[batcher], count))
                if reply is None:
                    self._window.arrived(keys)
                    return
                self._demand[batcher] -= count
                self._claiming += count
                claim = ClaimTasks(batcher, tuple(seq for _, seq in keys))
                await self._persister.put(Commit(claim, reply))
        self._refill()

    def _on_claimed(self, claim: _Claim, answer: object) -> None:
        self._claiming = max(0, self._claiming - claim.count)
        tasks: tuple[ClaimedTask, ...] = ()
        if isinstance(answer, Refused | ActorDied):
            # Whether the claim stands is unknown: the batcher's next look at the store tells.
            self._window.lost_count()
        else:
            tasks = cast("tuple[ClaimedTask, ...]", answer)
        if claim.term == self._terms[claim.batcher]:
            self._demand[claim.batcher] += claim.count - len(tasks)
        if tasks:
            self._undelivered[claim.batcher].append(TasksAssigned(claim.term, tasks))

    def _deliver(self) -> None:
        for batcher, assignments in self._undelivered.items():
            while assignments and self._batchers[batcher].put_nowait(assignments[0]):
                assignments.popleft()
            if assignments:
                self._try_again()

    def _refill(self) -> None:
        if not self._window.wants_refill():
            return
        refill = self._window.refill_begins()
        reply = self.mailbox.reserve(refill)
        if reply is None:
            self._window.refill_failed(refill)
        elif not self._reader.put_nowait(Ask(FetchBacklog(refill.after, refill.limit), reply)):
            reply.drop()
            self._window.refill_failed(refill)
            self._try_again()

    def _on_backlog(self, refill: Refill, answer: object) -> None:
        if isinstance(answer, tuple):
            self._window.refilled(refill, cast("tuple[Key, ...]", answer))
        else:
            self._window.refill_failed(refill)

    def _try_again(self) -> None:
        self._alarm.no_later_than(self._clock.monotonic() + PATIENCE_S)
