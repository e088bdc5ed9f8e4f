"""Traces replayed in virtual time: the orders that are compared, and the engine by arithmetic.

The engine's time is that of the simulated engine (`model.simulated.Timing`), who may enter is up to
the batcher's own `Staging` with its look-ahead and window, ranks are those of `actors.policy`. All
that is left out is what takes no time in the model: mailboxes, store and frames. Everything
happens between two steps of the engine, as there.
"""

from __future__ import annotations

import csv
import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from actors.policy.lengths import Lengths
from actors.policy.merge import URGENT_PRIORITY
from actors.policy.preempt import Running, Waiting, for_urgent
from actors.policy.rank import ranker
from actors.policy.staging import Staging
from autoglm.types import PRIORITY_DEFAULT, TaskSpec
from model.simulated import Timing
from runtime.config import BatchConfig
from runtime.store.protocol import ClaimedTask

CHARS_PER_TOKEN = 4
StopRule = Callable[[Sequence[Running], Sequence[Waiting], float], tuple[int, ...]]


class Request(NamedTuple):
    arrival_s: float
    prompt: int
    output: int
    """Tokens, both."""
    kind: str
    priority: int = PRIORITY_DEFAULT


class Machine(NamedTuple):
    """The engine, as it is configured."""

    slots: int
    timing: Timing

    @property
    def prefill_steps(self) -> float:
        """Steps that prefilling one token takes."""
        return self.timing.prefill_token_s / self.timing.step_s


def read_trace(path: Path) -> list[Request]:
    """Lines of `arrival_s,input_tokens,output_tokens` in order of arrival; the file names the kind."""
    with path.open(newline="") as lines:
        rows = [
            Request(float(row["arrival_s"]), int(row["input_tokens"]), int(row["output_tokens"]), "")
            for row in csv.DictReader(lines)
        ]
    return [row._replace(kind=path.stem, output=max(1, row.output)) for row in sorted(rows)]


class Order(Protocol):
    """Who is next. Requests are known by their numbers in the trace."""

    def __len__(self) -> int: ...
    def add(self, seq: int, request: Request, now_ms: int) -> None: ...
    def put_back(self, seq: int, request: Request, rank: int) -> None: ...
    def head(self) -> int: ...
    def take(self) -> tuple[int, int]:
        """The next one, and its rank."""
        ...

    def ended(self, request: Request, age_ms: int) -> None: ...
    def expected(self, request: Request) -> float: ...


class ByRank:
    """Ranks fixed at submission: `rank` says how, with what is learned meanwhile."""

    def __init__(self, rank: Callable[[Request, int, Lengths], int]) -> None:
        self._rank = rank
        self._lengths = Lengths()
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, seq: int, request: Request, now_ms: int) -> None:
        heapq.heappush(self._heap, (self._rank(request, now_ms, self._lengths), seq))

    def put_back(self, seq: int, request: Request, rank: int) -> None:  # noqa: ARG002
        heapq.heappush(self._heap, (rank, seq))

    def head(self) -> int:
        return self._heap[0][1]

    def take(self) -> tuple[int, int]:
        rank, seq = heapq.heappop(self._heap)
        return seq, rank

    def ended(self, request: Request, age_ms: int) -> None:
        chars = request.prompt * CHARS_PER_TOKEN
        self._lengths.ended("default", request.kind, chars, request.output, age_ms)

    def expected(self, request: Request) -> float:
        chars = request.prompt * CHARS_PER_TOKEN
        return self._lengths.expected("default", request.kind, chars)


class RoundRobin(ByRank):
    """A turn for each kind that has something waiting; within one first come, first served."""

    def __init__(self) -> None:
        super().__init__(_never)
        self._lines: dict[str, deque[int]] = {}
        self._turns: deque[str] = deque()
        self._waiting = self._taken = 0

    def __len__(self) -> int:
        return self._waiting

    def add(self, seq: int, request: Request, now_ms: int) -> None:  # noqa: ARG002
        line = self._lines.setdefault(request.kind, deque())
        if not line:
            self._turns.append(request.kind)
        line.append(seq)
        self._waiting += 1

    def head(self) -> int:
        return self._lines[self._turns[0]][0]

    def take(self) -> tuple[int, int]:
        kind = self._turns.popleft()
        line = self._lines[kind]
        seq = line.popleft()
        if line:
            self._turns.append(kind)
        self._waiting -= 1
        self._taken += 1
        return seq, self._taken


def _never(*_: object) -> int:
    raise AssertionError("turns have no rank")


_SPECS = [TaskSpec("", prompt="", priority=priority) for priority in range(10)]
_fifo, _priority = ranker("fifo"), ranker("priority")


def _mlfq(request: Request, now_ms: int, lengths: Lengths) -> int:
    chars = request.prompt * CHARS_PER_TOKEN
    boost = lengths.boost_ms("default", request.kind, chars)
    return _priority(_SPECS[request.priority], now_ms) - boost


ORDERS: dict[str, Callable[[], Order]] = {
    "fifo": lambda: ByRank(lambda one, now, _: _fifo(_SPECS[one.priority], now)),
    "round_robin": RoundRobin,
    "priority": lambda: ByRank(lambda one, now, _: _priority(_SPECS[one.priority], now)),
    "mlfq": lambda: ByRank(_mlfq),
    "clairvoyant": lambda: ByRank(lambda one, _now, _: one.priority * 10**9 + one.output),
}


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
            self._end(done)
            self._claim()
            prefill = self._send(done)
            if self.stop is not None and self._stop(done):
                prefill += self._send(done)
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
            self._claim()

    def _claim(self) -> None:
        """As many as the batcher asks for."""
        order, slots = self.order, self.machine.slots
        while len(order):
            room = self.staging.room(slots) > len(self.flying)
            if not (room or (self.at_once and self._urgent(order.head()))):
                return
            seq, rank = order.take()
            self.staged[seq] = rank
            task = ClaimedTask(seq, "", 1, 0, 0, self.requests[seq].priority, rank, False)
            self.staging.add((task,), self.now)

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

    def _send(self, done: Replayed) -> int:
        """What goes in now; its tokens to prefill."""
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
                prefill += self._start(task.seq, done)
            self._claim()
        return prefill

    def _start(self, seq: int, done: Replayed) -> int:
        del self.staged[seq]
        request, before = self.requests[seq], self.made.get(seq, 0)
        if done.started_s[seq] < 0:
            done.started_s[seq] = self.now
        done.prefilled_again += request.prompt + before if before else 0
        self.flying[seq] = _Flight(self.step, before, self.order.expected(request))
        heapq.heappush(self.ends, (self.step + request.output - before, seq))
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
        request, made = self.requests[seq], flight.before + self.step - flight.joined
        stops = self.stopped.get(seq, 0)
        return Running(seq, request.priority, request.prompt, made, flight.expected, stops)

    def _advance(self, prefill: int) -> None:
        """To the end of the next step, or to that of the last one before something may happen."""
        timing = self.machine.timing
        while self._ends_at(self.ends[0][1]) != self.ends[0][0]:
            heapq.heappop(self.ends)
        steps = 1
        if not prefill:
            steps = self.ends[0][0] - self.step
            free = len(self.flying) < self.machine.slots
            if free and self.staged and not self.reserve:
                steps = 1
            elif (free or self.at_once) and self.arrived < len(self.requests):
                gap = self.requests[self.arrived].arrival_s - self.now
                steps = min(steps, max(1, math.ceil(gap / timing.step_s)))
        self.step += steps
        self.now += timing.step(prefill) + (steps - 1) * timing.step_s
