"""The orders that bench/scheduling.py compares, and the requests of a trace.

Ranks are those of `actors.policy`. `clairvoyant` knows what nobody can know: the shortest answer
goes first.
"""

from __future__ import annotations

import csv
import heapq
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

from actors.policy.lengths import Lengths
from actors.policy.rank import ranker
from autoglm.types import PRIORITY_DEFAULT, TaskSpec

CHARS_PER_TOKEN = 4


class Request(NamedTuple):
    arrival_s: float
    prompt: int
    output: int
    """Tokens, both."""
    kind: str
    priority: int = PRIORITY_DEFAULT


def read_trace(path: Path) -> list[Request]:
    """Lines of `arrival_s,input_tokens,output_tokens` as requests, in order of arrival.

    The file's name is their kind. An answer has one token at least.
    """
    with path.open(newline="") as lines:
        return sorted(
            Request(
                float(row["arrival_s"]),
                int(row["input_tokens"]),
                max(1, int(row["output_tokens"])),
                path.stem,
            )
            for row in csv.DictReader(lines)
        )


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
_fifo, _priority = ranker("fifo").rank, ranker("priority").rank


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
OURS = "mlfq"
