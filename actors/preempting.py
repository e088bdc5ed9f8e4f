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
        rows = {flight.task.seq: self._row(flight, now, speed) for flight in flying}
        chosen: list[Flight[ClaimedTask]] = []
        for tenant in dict.fromkeys(task.lane[1] for task in waiting):
            left = [flight for flight in flying if flight not in chosen]
            may = _may_be_stopped(left, tenant, [task.lane[1] for task in waiting], rules, rows)
            running = [rows[flight.task.seq] for flight in may] + [
                _spared(rows[flight.task.seq]) for flight in flying if flight not in may
            ]
            enter = [self._waiting(task) for task in waiting if task.lane[1] == tenant]
            seqs = for_urgent(running, enter, PREFILL_STEPS)
            chosen += [flight for flight in may if flight.task.seq in seqs]
        for flight in chosen:
            self._count(flight.task.seq)
        return chosen

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


def _may_be_stopped(
    flying: Sequence[Flight[ClaimedTask]],
    tenant: str,
    wanting: Sequence[str],
    rules: Rules,
    rows: dict[int, Running],
) -> list[Flight[ClaimedTask]]:
    """For a task of `tenant`; `wanting` are the tenants of all that wait."""
    held = Counter(flight.task.lane[1] for flight in flying if not flight.stopping)
    weights = {name: rules.tenant_weight(name) for name in {*held, *wanting}}
    slots, total = len(flying), sum(weights.values())
    surplus = {name: int(count - slots * weights[name] / total) for name, count in held.items()}
    may: list[Flight[ClaimedTask]] = []
    for flight in sorted(flying, key=lambda flight: rows[flight.task.seq].again):
        owner = flight.task.lane[1]
        if rows[flight.task.seq].spared:
            continue
        if owner == tenant:
            may.append(flight)
        elif surplus[owner] > 0:
            surplus[owner] -= 1
            may.append(flight)
    return may


def _spared(row: Running) -> Running:
    return row if row.spared else row.but_spared()


def _chars(task: ClaimedTask) -> int:
    return len(task.prompt or "") + sum(len(message.content) for message in task.messages)
