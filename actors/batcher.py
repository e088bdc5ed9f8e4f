"""The batcher: feeds one engine and records what comes out of it.

Owns the tasks that are claimed for its engine and not in it yet. Accepts `TasksAssigned` from the
scheduler, `TasksStopped` from the persister, the answers to its commits, and the engine's signal.
Emits requests to the engine in batches, `RecordOutcomes` to the persister, and `WantTasks` to the
scheduler: a little more than the free slots, so that a slot that frees finds a task claimed.

What is in the engine belongs to the engine's address and is kept there until its outcome is
committed, so a batcher that restarts adopts it. What was only staged is put back, uncharged, when
the successor starts.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any, assert_never

import msgspec

from actors.keeping import Keeper, Saving
from actors.messages import (
    BatcherMessage,
    Commit,
    DemandWithdrawn,
    Drain,
    Refused,
    TasksAssigned,
    TasksStopped,
    WantTasks,
)
from actors.policy.retry import outcome, timeout_s
from actors.policy.rules import ConfiguredRules
from actors.policy.shares import BY_RANK
from actors.policy.staging import Batch, Staging
from actors.preempting import urgent_room
from actors.totals import BatcherStatistics, Totals
from autoglm.types import ErrorInfo
from model.engine import GIVEN_UP, Completion, EngineRequest
from model.flight import Flight
from model.hosted import HostedEngine
from runtime.actor import Actor
from runtime.alarm import Alarm
from runtime.bell import Signal
from runtime.clock import Clock, Rng
from runtime.config import Config
from runtime.mailbox import ActorDied, Answered, Mailbox, ask
from runtime.store.protocol import ClaimedTask, PutBack, RecordOutcomes

CAPACITY = 4096
PATIENCE_S = 0.02
"""How soon to ask again where there was no room to ask."""
HANDED_BACK = ErrorInfo(GIVEN_UP, "handed back before it began")


class _Recording(msgspec.Struct, frozen=True):
    """Outcomes on their way to the store."""

    flights: tuple[Flight[ClaimedTask], ...]


class PutBackFailed(Exception):
    """What was claimed for our predecessor could not be put back, so we can't begin."""


class Batcher(Actor[BatcherMessage]):
    def __init__(
        self,
        name: str,
        mailbox: Mailbox[BatcherMessage],
        engine: HostedEngine[ClaimedTask],
        persister: Mailbox[Commit],
        scheduler: Mailbox[Any],
        config: Config,
        clock: Clock,
        rng: Rng,
        totals: Totals,
    ) -> None:
        super().__init__(mailbox)
        self.name = name
        self._engine = engine
        self._persister = persister
        self._scheduler = scheduler
        self._config = config
        self._clock = clock
        self._rng = rng
        self._totals = totals
        self._alarm = Alarm(clock, Signal(mailbox.bell))
        self.alarms.append(self._alarm)
        self._staging = Staging(config.batch, lanes=config.scheduler.policy not in BY_RANK)
        """Claimed, not in the engine yet."""
        self._dispatched: dict[int, Flight[ClaimedTask]] = {}
        """In the engine, by task number, in the order they were sent."""
        self._deadlines: list[tuple[float, int, int]] = []
        """A heap of when attempts have taken too long, by task and attempt number; those that
        have ended stay in it until they are at its head.
        """
        self._to_record: list[Flight[ClaimedTask]] = []
        self._asked = 0
        """Tasks asked of the scheduler that have not come."""
        self._asked_urgent = 0
        """The same of urgent ones, beyond what there is room for."""
        self._preempts = config.scheduler.preemption and config.scheduler.policy != "fifo"
        self._rules = ConfiguredRules(config)
        self._draining = False
        self._keeper = Keeper(engine, mailbox, persister)
        self._term = totals.new_term()

    async def on_start(self) -> None:
        engine = self._engine
        engine.changed = Signal(self.mailbox.bell)
        engine.take_ended()
        for flight in engine.flights():
            if flight.ended is not None:
                self._to_record.append(flight)
                continue
            self._dispatched[flight.task.seq] = flight
            self._limit(flight.task)
            self._staging.on_trial = self._staging.on_trial or flight.trial > 0
        held = frozenset((flight.task.seq, flight.task.attempt) for flight in engine.flights())
        done = await ask(self._persister, lambda reply: Commit(PutBack(self.name, held), reply))
        if isinstance(done, Refused | ActorDied):
            raise PutBackFailed(done)

    def handle(self, message: BatcherMessage) -> None:
        match message:
            case TasksAssigned():
                self._on_assigned(message)
            case TasksStopped(seqs):
                self._on_stopped(seqs)
            case Drain(running_too):
                self._draining = True
                if running_too:
                    self._engine.stop(self._engine.flights())
            case Answered(Saving()):
                self._keeper.saved()
            case Answered(_Recording() as recording, answer):
                self._on_recorded(recording, answer)
            case Answered():
                raise TypeError(f"an answer to nothing we asked: {message!r}")
            case _:
                assert_never(message)

    async def settle(self) -> None:
        self._alarm.rang()
        self._time_out()
        self._collect()
        self._dispatch()
        self._preempt()
        self._ask_for_more()
        await self._record()
        await self._keeper.save()

    def statistics(self) -> BatcherStatistics:
        return self._totals.statistics(len(self._staging), self._engine.flying)

    # ── messages ─────────────────────────────────────────────────────────────────────────────

    def _on_assigned(self, assigned: TasksAssigned) -> None:
        tasks, urgent = assigned.tasks, assigned.urgent
        if assigned.term != self._term:
            # Meant for our predecessor: put back when we began, or by this, or both.
            self._give_back(tasks)
            return
        if urgent:
            self._asked_urgent = max(0, self._asked_urgent - len(tasks))
        else:
            self._asked = max(0, self._asked - len(tasks))
        self._staging.add(tasks, self._clock.monotonic(), first=urgent)

    def _on_stopped(self, seqs: tuple[int, ...]) -> None:
        self._staging.remove(seqs)
        flights = [self._dispatched.pop(seq) for seq in seqs if seq in self._dispatched]
        self._engine.abort([flight.request.id for flight in flights])

    def _on_recorded(self, recording: _Recording, answer: object) -> None:
        if isinstance(answer, Refused | ActorDied):
            self._to_record += recording.flights
            self._alarm.no_later_than(self._clock.monotonic() + PATIENCE_S)
            return
        for flight in recording.flights:
            self._engine.release(flight)

    # ── turns ────────────────────────────────────────────────────────────────────────────────

    def _time_out(self) -> None:
        """End attempts that take too long, as failures of theirs."""
        now = self._clock.monotonic()
        while self._deadlines:
            deadline, seq, attempt = self._deadlines[0]
            flight = self._dispatched.get(seq)
            runs = flight is not None and flight.ended is None and flight.task.attempt == attempt
            if runs and deadline > now:
                self._alarm.no_later_than(deadline)
                return
            heapq.heappop(self._deadlines)
            if runs and flight is not None:
                limit = timeout_s(flight.task, self._config.retry)
                self._engine.time_out(flight, f"not answered within {limit:g} s")

    def _collect(self) -> None:
        for flight in self._engine.take_ended():
            if self._dispatched.pop(flight.task.seq, None) is not None:
                self._totals.preemption.ended(flight)
                self._to_record.append(flight)
        if self._engine.info is None or self._draining:
            self._hand_back()

    def _hand_back(self) -> None:
        """What the engine has not begun is for whoever has an engine first."""
        asked = self._asked or self._asked_urgent
        if asked and self._scheduler.put_nowait(DemandWithdrawn(self.name)):
            self._asked = self._asked_urgent = 0
        self._give_back(self._staging.clear())

    def _give_back(self, tasks: Sequence[ClaimedTask]) -> None:
        for task in tasks:
            flight = Flight(_request(task), task)
            flight.ended = Completion(task.id, task.attempt, error=HANDED_BACK)
            self._to_record.append(flight)

    def _dispatch(self) -> None:
        info, staging = self._engine.info, self._staging
        if info is None:
            return
        now = self._clock.monotonic()
        while (batch := staging.next_batch(info.slots, self._engine.flying, now)) is not None:
            self._send(batch)
        if staging.wake_at is not None:
            self._alarm.no_later_than(staging.wake_at)

    def _send(self, batch: Batch) -> None:
        flights = [Flight(_request(task), task, trial=batch.trial) for task in batch.tasks]
        for flight in flights:
            self._dispatched[flight.task.seq] = flight
            flight.since = self._clock.monotonic()
            self._limit(flight.task)
        self._alarm.no_later_than(self._deadlines[0][0])
        self._engine.submit(flights)
        self._totals.sent(batch)

    def _preempt(self) -> None:
        """Stop some for urgent ones that wait: they are put back, and go on from there later."""
        info, engine = self._engine.info, self._engine
        if not self._preempts or info is None or engine.flying < info.slots:
            return
        waiting = self._staging.urgent_first
        if waiting:
            flying = [flight for flight in self._dispatched.values() if flight.ended is None]
            now, speed = self._clock.monotonic(), engine.statistics().tokens_per_s
            preemption = self._totals.preemption
            engine.stop(preemption.choose(flying, waiting, self._rules, now, speed))

    def _ask_for_more(self) -> None:
        info = self._engine.info
        if info is None or self._draining:
            return
        want = max(0, self._staging.room(info.slots) - self._engine.flying - self._asked)
        urgent = 0
        if self._preempts:
            held = self._staging.urgent + self._asked_urgent
            urgent = max(0, urgent_room(info.slots) - held)
        if not (want or urgent):
            return
        if self._scheduler.put_nowait(WantTasks(self.name, self._term, want, urgent)):
            self._asked += want
            self._asked_urgent += urgent
        else:
            self._alarm.no_later_than(self._clock.monotonic() + PATIENCE_S)

    async def _record(self) -> None:
        if not self._to_record:
            return
        flights, self._to_record = tuple(self._to_record), []
        reply = self.mailbox.reserve(_Recording(flights))
        if reply is None:
            self._to_record = list(flights)
            return
        retry, draw = self._config.retry, self._rng.random
        outcomes = tuple(outcome(flight, retry, draw()) for flight in flights)
        self._totals.failures.note(self._engine.name, flights, outcomes, self._clock.wall_ms())
        await self._persister.put(Commit(RecordOutcomes(outcomes), reply))

    def _limit(self, task: ClaimedTask) -> None:
        """Its attempt begins, and may take so long."""
        at = self._clock.monotonic() + timeout_s(task, self._config.retry)
        heapq.heappush(self._deadlines, (at, task.seq, task.attempt))


def _request(task: ClaimedTask) -> EngineRequest:
    return EngineRequest(
        *(task.id, task.attempt, task.messages, task.prompt, task.sampling, task.stream),
        task.continued,
    )
