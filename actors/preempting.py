"""Whom of a full engine to stop for urgent tasks that are claimed and wait.

What a running request has made, and how long it will be, is estimated from the engine's speed and
from the answers before. `actors.policy.preempt` decides by price; here is who may be stopped for
whom: anybody of the same tenant, and of another tenant as many as it has more than its part of the
slots, by the weights of the tenants that are there. Suspects and their trials are let alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from actors.policy.poison import is_suspect
from actors.policy.preempt import Running, Waiting, for_urgent
from actors.policy.shares import Rules
from model.engine import Completion, continuable
from model.flight import Flight
from runtime.store.protocol import ClaimedTask

PREFILL_STEPS = 0.01
"""Steps of the engine that prefilling one token takes: a hundred of them weigh one token each for
all that run. What it truly is depends on the machine; the rule needs its order of magnitude.
"""
CHARS_PER_TOKEN = 4
ANSWER_TOKENS = 128.0
"""How long an answer is expected to be before there was one."""
LEARN = 0.05
"""How much the newest answer counts in the mean."""
REMEMBERED_MAX = 4096


def urgent_room(slots: int) -> int:
    """Urgent tasks that are claimed though nothing else would be."""
    return max(1, slots // 8)


class Preemption:
    """Outlives the batcher's instances: nobody is stopped for ever."""

    def __init__(self) -> None:
        self._stops: dict[int, int] = {}
        """By task number, the newest last."""
        self._mean = ANSWER_TOKENS

    def ended(self, flight: Flight[ClaimedTask]) -> None:
        ended = flight.ended
        if isinstance(ended, Completion) and ended.completion_tokens:
            self._mean += LEARN * (ended.completion_tokens - self._mean)
            self._stops.pop(flight.task.seq, None)

    def choose(
        self,
        flying: Sequence[Flight[ClaimedTask]],
        waiting: Sequence[ClaimedTask],
        rules: Rules,
        now: float,
        tokens_per_s: float,
    ) -> list[Flight[ClaimedTask]]:
        """Of `flying`, which fill the engine, those to stop; urgent tasks wait, in order.

        `tokens_per_s`: of the engine, all requests together.
        """
        waiting = waiting[sum(flight.stopping for flight in flying) :]
        if not waiting or any(flight.trial for flight in flying):
            return []
        speed = tokens_per_s / len(flying)
        rows = [self._row(flight, now, speed) for flight in flying]
        slots = _Slots(flying, waiting, rules)
        chosen: set[int] = set()
        for tenant in dict.fromkeys(task.lane[1] for task in waiting):
            may = slots.may_be_stopped(rows, tenant, chosen)
            running = [row if row.seq in may else row.but_spared() for row in rows]
            enter = [self._waiting(task) for task in waiting if task.lane[1] == tenant]
            chosen.update(for_urgent(running, enter, PREFILL_STEPS))
        for seq in chosen:
            self._count(seq)
        return [flight for flight in flying if flight.task.seq in chosen]

    def _row(self, flight: Flight[ClaimedTask], now: float, speed: float) -> Running:
        task, partial = flight.task, flight.partial or flight.task.continued
        before = len(task.continued.tokens) if task.continued else 0
        made = before + int((now - flight.since) * speed)
        return Running(
            seq=task.seq,
            priority=task.priority,
            prompt=partial.prompt_tokens if partial else _chars(task) // CHARS_PER_TOKEN,
            made=max(made, len(partial.tokens) if partial else 0),
            expected=self._expected(task),
            stops=self._stops.get(task.seq, 0),
            continuable=continuable(task.sampling),
            spared=now <= flight.since or flight.stopping or is_suspect(task.deaths),
        )

    def _waiting(self, task: ClaimedTask) -> Waiting:
        return Waiting(task.priority, self._expected(task))

    def _expected(self, task: ClaimedTask) -> float:
        limit = task.sampling.max_tokens
        return self._mean if limit is None else min(self._mean, limit)

    def _count(self, seq: int) -> None:
        self._stops[seq] = self._stops.pop(seq, 0) + 1
        if len(self._stops) > REMEMBERED_MAX:
            del self._stops[next(iter(self._stops))]


class _Slots:
    """Whose the slots are, and how many a tenant has beyond its part of them."""

    def __init__(
        self,
        flying: Sequence[Flight[ClaimedTask]],
        waiting: Sequence[ClaimedTask],
        rules: Rules,
    ) -> None:
        self._owner = {flight.task.seq: flight.task.lane[1] for flight in flying}
        self._held = Counter(flight.task.lane[1] for flight in flying if not flight.stopping)
        names = {*self._held, *(task.lane[1] for task in waiting)}
        weights = {name: rules.tenant_weight(name) for name in names}
        total = sum(weights.values())
        self._part = {name: len(flying) * weight / total for name, weight in weights.items()}

    def may_be_stopped(self, rows: Sequence[Running], tenant: str, chosen: set[int]) -> set[int]:
        """Of `rows`, by number, those that may be stopped for a task of `tenant`, less those that
        are `chosen` already.
        """
        held = self._held - Counter(self._owner[seq] for seq in chosen)
        surplus = {name: int(count - self._part[name]) for name, count in held.items()}
        may: set[int] = set()
        for row in sorted(rows, key=lambda row: row.order):
            owner = self._owner[row.seq]
            if row.seq in chosen or not row.yields:
                continue
            if owner != tenant:
                if surplus[owner] <= 0:
                    continue
                surplus[owner] -= 1
            may.add(row.seq)
        return may


def _chars(task: ClaimedTask) -> int:
    return len(task.prompt or "") + sum(len(message.content) for message in task.messages)
