"""Traces replayed in virtual time: the engine by arithmetic, and who may enter it.

The engine's time is that of the simulated engine (`model.simulated.Timing`), who may enter is up to
the batcher's own `Staging` with its look-ahead and window. All that is left out is what takes no
time in the model: mailboxes, store and frames. Everything happens between two steps of the engine.
What takes the slot of an answer that has just come out is sent when the next step has begun, so it
takes part in the one after it; an engine that has run empty begins at once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from actors.policy.preempt import Running, Waiting, for_urgent
from actors.policy.staging import Staging
from bench.orders import ORDERS, Order, Request
from bench.report import percentile
from model.simulated import Timing
from runtime.config import BatchConfig
from runtime.store.protocol import URGENT_PRIORITY, ClaimedTask

StopRule = Callable[[Sequence[Running], Sequence[Waiting], float], tuple[int, ...]]


class Machine(NamedTuple):
    """The engine, as it is configured."""

    slots: int
    timing: Timing

    @property
    def prefill_steps(self) -> float:
        """Steps that prefilling one token takes."""
        return self.timing.prefill_token_s / self.timing.step_s


@dataclass(slots=True)
class _Flight:
    joined: int
    """The step it took part in first since it was sent last."""
    before: int
    """Tokens made until then."""
    expected: float


@dataclass
class Replayed:
    """What became of each request, in the order of the trace. Seconds of virtual time."""

    started_s: list[float]
    finished_s: list[float]
    stops: int = 0
    prefilled_again: int = 0
    """Tokens."""


@dataclass
class Replay:
    """One run of a trace through one engine. `stop` says whom to stop when the engine is full,
    with `at_once` what is urgent is claimed though the batcher has no room, `reserve` slots are
    kept free of what is not urgent.
    """

    requests: Sequence[Request]
    order: Order
    machine: Machine
    stop: StopRule | None = None
    at_once: bool = False
    reserve: int = 0
    now: float = 0.0
    step: int = 0
    _late: int = 0
    """Tokens to prefill of what was sent when the step under way had begun."""
    arrived: int = 0
    staging: Staging = field(default_factory=lambda: Staging(BatchConfig()))
    staged: dict[int, int] = field(default_factory=dict[int, int])
    """Ranks of what is staged."""
    flying: dict[int, _Flight] = field(default_factory=dict[int, _Flight])
    ends: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """A heap of the steps after which answers are complete; stale ones of stopped requests too."""
    made: dict[int, int] = field(default_factory=dict[int, int])
    """Tokens of what was stopped, and how often that happened."""
    stopped: dict[int, int] = field(default_factory=dict[int, int])

    def run(self) -> Replayed:
        count = len(self.requests)
        done = Replayed([-1.0] * count, [0.0] * count)
        while True:
            self._arrive()
            prefill = self._late + self._send(done, self.step)
            self._late = 0
            self._end(done)
            self._claim(self.now)
            if not self.flying:
                prefill = self._send(done, self.step)
            else:
                self._late = self._send(done, self.step + 1)
            if self.stop is not None and self._stop(done):
                self._late += self._send(done, self.step + 1)
            if self.flying:
                self._advance(prefill)
            elif self.arrived < count:
                self.now = max(self.now, self.requests[self.arrived].arrival_s)
            else:
                return done

    def _arrive(self) -> None:
        requests, now = self.requests, self.now
        while self.arrived < len(requests) and requests[self.arrived].arrival_s <= now:
            request = requests[self.arrived]
            self.order.add(self.arrived, request, int(request.arrival_s * 1000))
            self.arrived += 1
            self._claim(request.arrival_s)

    def _claim(self, at_s: float) -> None:
        """As many as the batcher asks for."""
        order, slots = self.order, self.machine.slots
        while len(order):
            room = self.staging.room(slots) > len(self.flying)
            if not (room or (self.at_once and self._urgent(order.head()))):
                return
            seq, rank = order.take()
            self.staged[seq] = rank
            task = ClaimedTask(seq, "", 1, 0, 0, self.requests[seq].priority, rank, False)
            self.staging.add((task,), at_s)

    def _urgent(self, seq: int) -> bool:
        return self.requests[seq].priority <= URGENT_PRIORITY

    def _end(self, done: Replayed) -> None:
        while self.ends and self.ends[0][0] <= self.step:
            at, seq = heapq.heappop(self.ends)
            if self._ends_at(seq) != at:
                continue
            del self.flying[seq]
            done.finished_s[seq] = self.now
            request = self.requests[seq]
            self.order.ended(request, int((self.now - request.arrival_s) * 1000))

    def _ends_at(self, seq: int) -> int | None:
        flight = self.flying.get(seq)
        if flight is None:
            return None
        return flight.joined + self.requests[seq].output - flight.before

    def _send(self, done: Replayed, joins: int) -> int:
        """What goes in now and joins the engine's step so numbered; its tokens to prefill."""
        prefill = 0
        while self.staged:
            slots = self.machine.slots
            if self.reserve:
                urgent = sum(map(self._urgent, self.staged))
                slots = min(slots, max(slots - self.reserve, len(self.flying) + urgent))
            batch = self.staging.next_batch(slots, len(self.flying), self.now)
            if batch is None:
                break
            for task in batch.tasks:
                prefill += self._start(task.seq, done, joins)
            self._claim(self.now)
        return prefill

    def _start(self, seq: int, done: Replayed, joins: int) -> int:
        del self.staged[seq]
        request, before = self.requests[seq], self.made.get(seq, 0)
        if done.started_s[seq] < 0:
            done.started_s[seq] = self.now
        done.prefilled_again += request.prompt + before if before else 0
        self.flying[seq] = _Flight(joins, before, self.order.expected(request))
        heapq.heappush(self.ends, (joins + request.output - before, seq))
        return request.prompt + before

    def _stop(self, done: Replayed) -> bool:
        """Stop whom the rule names: they are put back, behind those they were stopped for."""
        if not self.staged or len(self.flying) < self.machine.slots:
            return False
        assert self.stop is not None
        if self.stop is for_urgent and not any(map(self._urgent, self.staged)):
            return False
        running = [self._running(seq, flight) for seq, flight in self.flying.items()]
        order = sorted(self.staged, key=lambda seq: (self.staged[seq], seq))
        expected, requests = self.order.expected, self.requests
        waiting = [Waiting(requests[seq].priority, expected(requests[seq])) for seq in order]
        seqs = self.stop(running, waiting, self.machine.prefill_steps)
        for each in running:
            if each.seq in seqs and each.made:
                del self.flying[each.seq]
                self.made[each.seq] = each.made
                self.stopped[each.seq] = each.stops + 1
                done.stops += 1
                behind = self.staged[order[min(len(seqs), len(order)) - 1]] + 1
                self.order.put_back(each.seq, requests[each.seq], behind)
        return bool(seqs)

    def _running(self, seq: int, flight: _Flight) -> Running:
        request = self.requests[seq]
        made = flight.before + max(0, self.step - flight.joined)
        stops = self.stopped.get(seq, 0)
        return Running(seq, request.priority, request.prompt, made, flight.expected, stops)

    def _advance(self, prefill: int) -> None:
        """To the end of the next step, or to that of the last one before something may happen."""
        timing = self.machine.timing
        while self._ends_at(self.ends[0][1]) != self.ends[0][0]:
            heapq.heappop(self.ends)
        steps = 1
        if not (prefill or self._late):
            steps = self.ends[0][0] - self.step
            free = len(self.flying) < self.machine.slots
            if free and self.staged and not self.reserve:
                steps = 1
            elif (free or self.at_once) and self.arrived < len(self.requests):
                gap = self.requests[self.arrived].arrival_s - self.now
                steps = min(steps, max(1, math.ceil(gap / timing.step_s)))
        self.step += steps
        self.now += timing.step(prefill) + (steps - 1) * timing.step_s


class Measured(NamedTuple):
    """What one order made of one trace. Seconds, and seconds a token."""

    mean: float
    p50: float
    p99: float
    longest_wait_s: float
    makespan_s: float

    @classmethod
    def of(cls, requests: Sequence[Request], done: Replayed) -> Measured:
        latencies = normalised(requests, done)
        starts = zip(requests, done.started_s, strict=True)
        return cls(
            sum(latencies) / len(latencies),
            percentile(latencies, 50),
            percentile(latencies, 99),
            max(start - each.arrival_s for each, start in starts),
            max(done.finished_s),
        )


def normalised(requests: Sequence[Request], done: Replayed) -> list[float]:
    ends = zip(requests, done.finished_s, strict=True)
    return [(end - each.arrival_s) / each.output for each, end in ends]


def replayed(requests: Sequence[Request], machine: Machine, order: str, **how: Any) -> Replayed:
    return Replay(requests, ORDERS[order](), machine, **how).run()


def saturation_s(requests: Sequence[Request], machine: Machine) -> float:
    """How long the engine takes for all of it, first come, first served."""
    at_once = [each._replace(arrival_s=0.0) for each in requests]
    return max(replayed(at_once, machine, "fifo").finished_s)


def scaled(requests: Sequence[Request], machine: Machine, load: float) -> list[Request]:
    factor = saturation_s(requests, machine) / load / requests[-1].arrival_s
    return [each._replace(arrival_s=each.arrival_s * factor) for each in requests]
