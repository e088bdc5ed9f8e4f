"""The scheduler: decides which tasks run next.

Owns what is known of the backlog, whose turn it is, and what each batcher has room for; the
decisions are `actors.policy.agenda`'s. Accepts `TasksMoved` from the persister, `DemandWithdrawn`
and `WantTasks` from batchers, and the answers to its claims and reads. Emits claims to the
persister and, after their commit, `TasksAssigned` to the batcher.

Claim before dispatch: no task reaches a batcher before the store says that it runs there. Demand
flows backwards: nothing is claimed that no batcher has room for.

When it dies nothing is lost: the backlog is in the store, and a batcher that starts after it asks
anew. Tasks claimed in its last moments are put back by their batcher, which misses them. Whoever
was ahead of his share is not held to it by the successor.
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
    TasksMoved,
    WantTasks,
)
from actors.policy.agenda import Agenda
from actors.policy.backlog import Reading
from actors.policy.pace import Pace
from runtime.actor import Actor, Statistics
from runtime.alarm import Alarm
from runtime.bell import Signal
from runtime.clock import Clock
from runtime.mailbox import ActorDied, Answered, Mailbox
from runtime.store.protocol import ClaimedTask, ClaimTasks, Lane
from runtime.store.scheduleprotocol import FetchBacklog, FetchSchedule, Found, Schedule

CAPACITY = 4096
CLAIM_MAX = 256
"""Tasks in one claim: bounds the transaction that others share."""
PATIENCE_S = 0.02
"""How soon to try again where a mailbox was full."""


class _Claim(msgspec.Struct):
    """What a claim's answer belongs to."""

    batcher: str
    term: int
    seqs: tuple[int, ...] = ()
    urgent: bool = False


class _Barrier(msgspec.Struct, frozen=True):
    """A claim of nothing: whatever was claimed before, by us or an earlier instance, is in the
    store once it is answered.
    """


class _Look(msgspec.Struct, frozen=True):
    """The question what there is to know; its answer."""


class SchedulerStatistics(Statistics, frozen=True):
    held: int
    """Keys of the backlog that are known."""
    running: int
    demand: dict[str, int]
    claiming: int
    lanes: dict[Lane, int]
    """Tasks that run, by lane; incomplete for the moments in which we ask the store anew."""


class Scheduler(Actor[SchedulerMessage]):
    def __init__(
        self,
        mailbox: Mailbox[SchedulerMessage],
        missed: Signal,
        persister: Mailbox[Commit],
        reader: Mailbox[Ask],
        batchers: dict[str, Mailbox[Any]],
        agenda: Agenda,
        clock: Clock,
        pace: Pace,
    ) -> None:
        """`agenda`: a new one, of which nobody else knows; `pace` outlives us, others read it."""
        super().__init__(mailbox)
        self._missed = missed
        """Set when the persister had news for us and our mailbox was full."""
        self._persister = persister
        self._reader = reader
        self._batchers = batchers
        self._clock = clock
        self._alarm = Alarm(clock, Signal(mailbox.bell))
        self.alarms.append(self._alarm)
        self._agenda = agenda
        self._pace = pace
        self._look: _Barrier | _Look | None = None
        """How far we are with asking what there is; answers to earlier questions are void."""
        self._lost = True
        """Whether we have to ask."""
        self._demand: dict[str, int] = dict.fromkeys(batchers, 0)
        """What each batcher has room for and we have not claimed yet."""
        self._urgent_demand: dict[str, int] = dict.fromkeys(batchers, 0)
        """What it would take beyond that if it is urgent."""
        self._terms: dict[str, int] = dict.fromkeys(batchers, 0)
        """The instance of each batcher that the demand is of."""
        self._claims: dict[int, _Claim] = {}
        """Our own that are under way, by identity."""
        self._undelivered: dict[str, deque[TasksAssigned]] = {name: deque() for name in batchers}
        """Claimed, and not in the batcher's mailbox yet, which may be full."""
        self._draining = False

    def handle(self, message: SchedulerMessage) -> None:
        self._agenda.tick(self._clock.monotonic())
        match message:
            case TasksMoved(ready, left, gone, urgent, begins):
                self._agenda.moved(ready, left, gone, urgent, begins)
                self._pace.stopped(left, self._clock.monotonic(), self._agenda.waits)
            case WantTasks(batcher, term, count, urgent):
                if term != self._terms[batcher]:
                    self._demand[batcher] = self._urgent_demand[batcher] = 0
                self._terms[batcher] = term
                self._demand[batcher] += count
                self._urgent_demand[batcher] += urgent
            case DemandWithdrawn(batcher):
                self._demand[batcher] = self._urgent_demand[batcher] = 0
            case Drain():
                self._draining = True
            case Answered(_Claim() as claim, answer):
                self._on_claimed(claim, answer)
            case Answered(Reading() as reading, answer):
                self._on_read(reading, answer)
            case Answered(_Barrier() | _Look() as look, answer):
                self._on_look(look, answer)
            case Answered():
                raise TypeError(f"an answer to nothing we asked: {message!r}")
            case _:
                assert_never(message)

    def statistics(self) -> SchedulerStatistics:
        claiming = sum(len(claim.seqs) for claim in self._claims.values())
        agenda = self._agenda
        demand, lanes = dict(self._demand), agenda.running_by_lane()
        return SchedulerStatistics(agenda.held, agenda.running, demand, claiming, lanes)

    async def settle(self) -> None:
        """Ask for what the decisions need: what there is, more of the backlog, and claims."""
        self._alarm.rang()
        self._agenda.tick(self._clock.monotonic())
        self._deliver()
        if self._missed.take():
            self._lost = True
        if self._draining:
            return
        await self._ask_what_there_is()
        self._read()
        for batcher in sorted(self._demand, key=self._demand.__getitem__, reverse=True):
            while self._demand[batcher] > 0 and await self._claim(batcher):
                pass
        for batcher in list(self._urgent_demand):
            while self._urgent_demand[batcher] > 0 and await self._claim(batcher, urgent=True):
                pass
        self._read()
        if (at := self._agenda.next_tick) is not None:
            self._alarm.no_later_than(at)

    async def _claim(self, batcher: str, *, urgent: bool = False) -> bool:
        """Claim what is to run next at `batcher`. Whether there may be more.

        `urgent`: only what is, beyond what there is room for.
        """
        claim = _Claim(batcher, self._terms[batcher], urgent=urgent)
        demand = self._urgent_demand if urgent else self._demand
        reply = self.mailbox.reserve(claim)
        if reply is None:
            return False
        claim.seqs = self._agenda.take(min(demand[batcher], CLAIM_MAX), urgent=urgent)
        if not claim.seqs:
            reply.drop()
            return False
        # To the end: of batchers with equal room, the one served longest ago comes first.
        demand[batcher] = demand.pop(batcher) - len(claim.seqs)
        self._claims[id(claim)] = claim
        await self._persister.put(Commit(ClaimTasks(batcher, claim.seqs), reply))
        return True

    def _on_claimed(self, claim: _Claim, answer: object) -> None:
        self._claims.pop(id(claim), None)  # it may be an earlier instance's
        tasks: tuple[ClaimedTask, ...] = ()
        if isinstance(answer, Refused | ActorDied):
            # Whether the claim stands is unknown: the batcher's next look at the store tells.
            self._lost = True
        else:
            tasks = cast("tuple[ClaimedTask, ...]", answer)
            self._agenda.not_claimed(set(claim.seqs) - {task.seq for task in tasks})
            claimed = {task.seq: task.lane for task in tasks}
            self._pace.began(claimed, self._clock.monotonic())
        if claim.term == self._terms[claim.batcher]:
            demand = self._urgent_demand if claim.urgent else self._demand
            demand[claim.batcher] += len(claim.seqs) - len(tasks)
        if tasks:
            assigned = TasksAssigned(claim.term, tasks, claim.urgent)
            self._undelivered[claim.batcher].append(assigned)

    def _deliver(self) -> None:
        for batcher, assignments in self._undelivered.items():
            while assignments and self._batchers[batcher].put_nowait(assignments[0]):
                assignments.popleft()
            if assignments:
                self._try_again()

    # ── what there is ────────────────────────────────────────────────────────────────────────

    async def _ask_what_there_is(self) -> None:
        if not self._lost:
            return
        look = _Barrier()
        reply = self.mailbox.reserve(look)
        if reply is None:
            return
        self._lost, self._look = False, look
        self._pace.lost_count()
        self._agenda.lost_count(seq for claim in self._claims.values() for seq in claim.seqs)
        await self._persister.put(Commit(ClaimTasks("", ()), reply))

    def _on_look(self, look: _Barrier | _Look, answer: object) -> None:
        if look is not self._look:
            return
        self._look = None
        if isinstance(answer, Schedule):
            self._agenda.learned(answer)
        elif isinstance(look, _Barrier) and not isinstance(answer, Refused | ActorDied):
            self._look = _Look()
            if not self._ask(FetchSchedule(), self._look):
                self._lost, self._look = True, None
        else:
            self._lost = True
            self._try_again()

    def _read(self) -> None:
        reading = self._agenda.reading_begins()
        if reading is not None and not self._ask(reading.query, reading):
            self._agenda.read_failed(reading)

    def _on_read(self, reading: Reading, answer: object) -> None:
        if isinstance(answer, Found):
            self._agenda.read(reading, answer.keys, answer.begins)
        else:
            self._agenda.read_failed(reading)

    def _ask(self, query: FetchSchedule | FetchBacklog, key: object) -> bool:
        """Ask the reader; False: there is no room, we have to try again."""
        reply = self.mailbox.reserve(key)
        if reply is None:
            return False  # a message that frees room wakes us
        if self._reader.put_nowait(Ask(query, reply)):
            return True
        reply.drop()
        self._try_again()
        return False

    def _try_again(self) -> None:
        self._alarm.no_later_than(self._clock.monotonic() + PATIENCE_S)
