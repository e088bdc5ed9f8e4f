"""`priority_rules`, `priority_conditions` and `priority_factors` in the configuration.

What they mean is in actors.policy.priority; here is how they are written, and what can't be.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec

from autoglm.errors import ConfigError
from autoglm.spec import FACTORS_MAX, NAME_CHARS_MAX, NUMBER_MAX, control_in
from autoglm.text import one_line
from autoglm.types import PRIORITY_LEAST_URGENT, PRIORITY_MOST_URGENT
from runtime.configdoc import doc
from runtime.duration import Duration
from runtime.queueconfig import QUEUES, QueueConfig

Priority = Annotated[int, msgspec.Meta(ge=PRIORITY_MOST_URGENT, le=PRIORITY_LEAST_URGENT)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
Number = Annotated[float, msgspec.Meta(ge=0, le=NUMBER_MAX)]


class KindRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is so of all tasks of one kind; a number alone is its priority."""

    priority: Annotated[Priority | None, doc("Smaller is more urgent.")] = None
    share: Annotated[
        Share | None, doc("Makes a queue with the name of the kind, of this weight.")
    ] = None
    queue: Annotated[str | None, doc("Or: where its tasks go that name no queue.")] = None


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be so of a task, all of it, and the priority it gets."""

    priority: Annotated[Priority, doc("Smaller is more urgent.")]
    kind: Annotated[str | None, doc("It is of this kind.")] = None
    tenant: Annotated[str | None, doc("It is this tenant's.")] = None
    queue: Annotated[str | None, doc("It is for this queue.")] = None
    deadline_within: Annotated[
        Duration | None, doc("Its deadline is less than this away, or has passed.")
    ] = None
    weight_above: Annotated[Number | None, doc("Its weight is more than this.")] = None


def written_out(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with every rule as a section: `KIND: 1` says `KIND: {priority: 1}`."""
    named = tree.get("priority_rules")
    if not isinstance(named, dict):
        return dict(tree)
    rules = cast("dict[object, object]", named)
    full: dict[object, object] = {
        kind: cast("object", rule) if isinstance(rule, dict | None) else {"priority": rule}
        for kind, rule in rules.items()
    }
    return {**tree, "priority_rules": full}


def rule_sections(
    tree: Mapping[str, Any],
) -> Iterator[tuple[str, dict[str, Any], type[msgspec.Struct]]]:
    """The sections of what was `written_out`: path, content, what it should be."""
    rules, conditions = tree.get("priority_rules"), tree.get("priority_conditions")
    if isinstance(rules, dict):
        for kind, rule in cast("dict[object, object]", rules).items():
            yield _section(f"priority_rules.{one_line(str(kind), 40)}", rule, KindRule)
    if isinstance(conditions, list):
        for place, condition in enumerate(cast("list[object]", conditions)):
            yield _section(f"priority_conditions[{place}]", condition, Condition)


def _section(
    path: str, value: object, kind: type[msgspec.Struct]
) -> tuple[str, dict[str, Any], type[msgspec.Struct]]:
    if not isinstance(value, dict):
        expected = "a priority or a section" if kind is KindRule else "a section"
        raise ConfigError(f"{path}: expected {expected}, such as {path}.priority", at=path)
    return f"{path}.", cast("dict[str, Any]", value), kind


def with_shares(
    queues: Mapping[str, QueueConfig], rules: Mapping[str, KindRule]
) -> dict[str, QueueConfig]:
    """`queues`, and those that the kinds with a share make. Raises ConfigError."""
    made = dict(queues)
    for kind, rule in rules.items():
        if rule.share is None:
            continue
        path = f"priority_rules.{one_line(kind, 40)}.share"
        queue = queues.get(kind, QueueConfig())
        if kind in QUEUES:
            raise ConfigError(f"{path}: there is a queue {kind}; set queues.{kind}.weight", at=path)
        if queue.weight is not None:
            raise ConfigError(
                f"{path}: queues.{one_line(kind, 40)}.weight says the same; give one", at=path
            )
        made[kind] = msgspec.structs.replace(queue, weight=rule.share)
    return made


def check_rules(
    rules: Mapping[str, KindRule],
    conditions: Sequence[Condition],
    factors: Mapping[str, float],
    queues: Collection[str],
) -> None:
    """Raises ConfigError for what could never act, naming its path. `queues`: those there are."""
    for kind, rule in rules.items():
        path = f"priority_rules.{one_line(kind, 40)}"
        _check_name(path, kind)
        if rule == KindRule():
            raise ConfigError(f"{path} says nothing: give a priority, a share or a queue", at=path)
        if rule.share is not None and rule.queue is not None:
            raise ConfigError(
                f"{path}: a share makes a queue of its own; give it or queue", at=path
            )
        _check_queue(f"{path}.queue", rule.queue, queues)
    for place, condition in enumerate(conditions):
        path = f"priority_conditions[{place}]"
        if condition == Condition(condition.priority):
            raise ConfigError(
                f"{path} has no condition: give one of {', '.join(_CONDITIONS)}", at=path
            )
        _check_queue(f"{path}.queue", condition.queue, queues)
    if len(factors) > FACTORS_MAX:
        raise ConfigError(
            f"priority_factors: at most {FACTORS_MAX}, not {len(factors)}", at="priority_factors"
        )
    for name in factors:
        _check_name(f"priority_factors.{one_line(name, 40)}", name)


_CONDITIONS = tuple(field for field in Condition.__struct_fields__ if field != "priority")


def _check_name(path: str, name: str) -> None:
    if not 0 < len(name) <= NAME_CHARS_MAX:
        raise ConfigError(f"{path}: a name has from 1 to {NAME_CHARS_MAX} characters", at=path)
    if control_in(name) is not None:
        raise ConfigError(f"{path}: a name holds no control character", at=path)


def _check_queue(path: str, queue: str | None, queues: Collection[str]) -> None:
    if queue is not None and queue not in queues:
        known = ", ".join(one_line(name, 40) for name in queues)
        raise ConfigError(f"{path}: no queue {one_line(queue, 40)}; there are: {known}", at=path)
