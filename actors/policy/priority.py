"""What the rules of the configuration make of a task when it is handed in. Pure, applied once.

A priority that was given stands. Otherwise the first of these that says something decides:

1. the first of `priority_conditions` that holds. "Within" and "above" are strict, and a deadline
   that has passed is within any span;
2. `priority_factors`, if the task gives one of them: the mean of its numbers (0 to 10), each
   weighed as configured and the weights normalised over those it gives. 10 is priority 0, 0 is 9;
3. `priority_rules` of its kind;
4. the default.

The queue is the one that was given, or that of its kind, or the default.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable

import msgspec

from autoglm.errors import InvalidRequest
from autoglm.given import priority_of, queue_of
from autoglm.spec import NUMBER_MAX
from autoglm.text import one_line
from autoglm.types import PRIORITY_LEAST_URGENT, TaskSpec
from runtime.config import Config
from runtime.priorityconfig import Condition, KindRule

Settle = Callable[[TaskSpec], TaskSpec]
"""A task as it is given, to the task with its priority and queue. Raises InvalidRequest."""

_NO_RULE = KindRule()


class PriorityRules:
    def __init__(self, config: Config) -> None:
        self._kinds = config.priority_rules
        self._conditions = config.priority_conditions
        self._factors = config.priority_factors

    def at(self, now_ms: int) -> Settle:
        """What settles the tasks that are handed in at this moment (Unix ms)."""
        return lambda spec: self.settle(spec, now_ms)

    def settle(self, spec: TaskSpec, now_ms: int) -> TaskSpec:
        """The task with its priority and queue. Raises InvalidRequest for an unknown factor."""
        self._check_factors(spec)
        rule = _NO_RULE if spec.kind is None else self._kinds.get(spec.kind, _NO_RULE)
        queue = spec.queue or (spec.kind if rule.share is not None else rule.queue)
        placed = msgspec.structs.replace(spec, queue=queue)
        priority = placed.priority
        if priority is None:
            priority = self._by_condition(placed, now_ms)
        if priority is None:
            priority = self._by_factors(placed)
        if priority is None:
            priority = rule.priority
        settled = msgspec.structs.replace(placed, priority=priority)
        return msgspec.structs.replace(
            settled, priority=priority_of(settled), queue=queue_of(settled)
        )

    def _by_condition(self, spec: TaskSpec, now_ms: int) -> int | None:
        held = (each.priority for each in self._conditions if holds(each, spec, now_ms))
        return next(held, None)

    def _by_factors(self, spec: TaskSpec) -> int | None:
        if not spec.factors:
            return None
        weights = {name: self._factors[name] for name in spec.factors}
        total = math.fsum(weights.values())
        score = math.fsum(weights[name] * value for name, value in spec.factors.items()) / total
        return urgency_as_priority(score)

    def _check_factors(self, spec: TaskSpec) -> None:
        """A misspelt factor would count for nothing, and nobody would know."""
        for name in spec.factors:
            if name not in self._factors:
                near = difflib.get_close_matches(name, self._factors, n=1)
                known = ", ".join(self._factors) or "none"
                hint = f"did you mean {near[0]}?" if near else f"this server knows: {known}"
                raise InvalidRequest(f"no factor {one_line(name, 40)!r}; {hint}")


def holds(condition: Condition, spec: TaskSpec, now_ms: int) -> bool:
    """Whether all that the condition says is so of the task."""
    within, above = condition.deadline_within, condition.weight_above
    return (
        condition.kind in (None, spec.kind)
        and condition.tenant in (None, spec.tenant)
        and condition.queue in (None, queue_of(spec))
        and (
            within is None
            or (spec.deadline_at is not None and spec.deadline_at - now_ms < within.ms)
        )
        and (above is None or (spec.weight is not None and spec.weight > above))
    )


def urgency_as_priority(score: float) -> int:
    """The priority that a score from 0 to 10 stands for; 10 is the most urgent."""
    urgency = min(max(score / NUMBER_MAX, 0.0), 1.0)
    return math.floor((1 - urgency) * PRIORITY_LEAST_URGENT + 0.5)
