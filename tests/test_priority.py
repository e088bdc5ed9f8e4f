"""The rules: which priority and queue a task gets that names none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.admission import check_lines, check_task
from actors.policy.priority import PriorityRules, urgency_as_priority
from autoglm.errors import InvalidRequest
from autoglm.given import priority_of
from autoglm.types import TaskSpec
from autoglm.wire import JobLine
from runtime.configload import load
from runtime.queueconfig import QUEUES

NOW = 1_700_000_000_000
HOUR = 3_600_000
ID = "0" * 26
URGENT = "priority_conditions=[{deadline_within: 2h, weight_above: 5, priority: 0}]"
FACTORS = "priority_factors={value: 0.4, urgency_score: 0.35, size: 0.25}"
KINDS = "priority_rules={pay: 1, metrics: {priority: 3, share: 20}, backup: {queue: background}}"


def settled(*settings: str, tenant: str = "default", **given_: Any) -> TaskSpec:
    spec = TaskSpec(ID, prompt="hello", tenant=tenant, **given_)
    return PriorityRules(load(settings=settings)).settle(spec, NOW)


def priority(*settings: str, **given_: Any) -> int | None:
    return settled(*settings, **given_).priority


def test_without_rules_a_task_is_of_priority_5_in_the_queue_normal() -> None:
    assert (settled().priority, settled().queue) == (5, "normal")
    assert (settled(kind="pay").priority, settled(weight=9).queue) == (5, "normal")


def test_a_kind_picks_the_priority() -> None:
    assert priority(KINDS, kind="pay") == 1
    assert priority(KINDS, kind="unheard-of") == 5


def test_a_kind_picks_the_queue_by_its_share_or_by_name() -> None:
    metrics, backup = settled(KINDS, kind="metrics"), settled(KINDS, kind="backup")
    assert (metrics.priority, metrics.queue) == (3, "metrics")
    assert (backup.priority, backup.queue) == (5, "background")


def test_what_is_given_wins_over_every_rule() -> None:
    every = (KINDS, URGENT, FACTORS)
    numbers: dict[str, Any] = {"deadline_at": NOW, "weight": 9, "factors": {"value": 10}}
    task = settled(*every, kind="metrics", priority=5, queue="core", **numbers)
    assert (task.priority, task.queue) == (5, "core")


@pytest.mark.parametrize(
    ("left_ms", "weight", "urgent"),
    [
        (2 * HOUR - 1, 5.01, True),
        (2 * HOUR, 5.01, False),
        (2 * HOUR - 1, 5, False),
        (2 * HOUR - 1, None, False),
        (-HOUR, 6, True),
        (None, 6, False),
    ],
)
def test_within_and_above_are_strict_and_overdue_is_within(
    left_ms: int | None, weight: float | None, urgent: bool
) -> None:
    deadline_at = None if left_ms is None else NOW + left_ms
    found = priority(URGENT, deadline_at=deadline_at, weight=weight)
    assert found == (0 if urgent else 5)


def test_a_condition_holds_when_all_of_it_does() -> None:
    rule = "priority_conditions=[{kind: pay, tenant: shop, queue: core, priority: 2}]"
    fits = {"kind": "pay", "tenant": "shop", "queue": "core"}
    assert priority(rule, **fits) == 2
    for name in fits:
        assert priority(rule, **{**fits, name: "background"}) == 5


def test_the_first_condition_that_holds_decides_before_factors_and_kind() -> None:
    rule = "priority_conditions=[{weight_above: 8, priority: 1}, {weight_above: 2, priority: 4}]"
    given_ = {"kind": "metrics", "factors": {"value": 0}}
    assert priority(rule, FACTORS, KINDS, weight=9, **given_) == 1
    assert priority(rule, FACTORS, KINDS, weight=3, **given_) == 4
    assert priority(rule, FACTORS, KINDS, weight=1, **given_) == 9
    assert priority(rule, FACTORS, KINDS, weight=1, kind="metrics") == 3


def test_a_condition_sees_the_queue_that_the_kind_picked() -> None:
    rule = "priority_conditions=[{queue: metrics, priority: 7}]"
    assert priority(rule, KINDS, kind="metrics") == 7


def test_factors_are_weighed_against_those_that_are_given() -> None:
    # 10 x 0.4 + 5 x 0.35 + 0 x 0.25 = 5.75 of 10: 9 x 0.425 = 3.8.
    assert priority(FACTORS, factors={"value": 10, "urgency_score": 5, "size": 0}) == 4
    assert priority(FACTORS, factors={"urgency_score": 10}) == 0


def test_weights_of_factors_count_against_each_other_alone() -> None:
    large = "priority_factors={value: 40, urgency_score: 35, size: 25}"
    given_ = {"value": 3, "urgency_score": 8, "size": 6}
    assert priority(large, factors=given_) == priority(FACTORS, factors=given_)


def test_an_unknown_factor_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidRequest, match=r"no factor 'urgncy_score'; did you mean urgency_s"):
        settled(FACTORS, factors={"urgncy_score": 5})
    with pytest.raises(InvalidRequest, match=r"this server knows: none"):
        settled(factors={"x": 5})


def test_a_line_with_an_unknown_factor_fails_alone() -> None:
    rules = PriorityRules(load(settings=[FACTORS])).at(NOW)
    bad = TaskSpec(ID, prompt="a", factors={"x": 1})
    good = TaskSpec(ID, prompt="a", factors={"value": 10})
    lines = check_lines([JobLine(1, task=bad), JobLine(2, task=good)], None, QUEUES, rules)
    assert lines[0].error is not None
    assert lines[0].task is None
    assert lines[1].task is not None
    assert lines[1].task.priority == 0


def test_a_condition_on_the_tenant_is_about_who_is_bound_not_about_what_is_claimed() -> None:
    rule = "priority_conditions=[{tenant: shop, priority: 0}]"
    rules = PriorityRules(load(settings=[rule])).at(NOW)
    spec = TaskSpec(ID, prompt="a", tenant="shop")
    assert check_task(spec, "other", QUEUES, rules).priority == 5


specs = st.builds(
    TaskSpec,
    st.just(ID),
    prompt=st.just("hello"),
    kind=st.sampled_from([None, "pay", "metrics", "backup", "x"]),
    queue=st.sampled_from([None, "core", "normal"]),
    priority=st.none() | st.integers(0, 9),
    deadline_at=st.none() | st.integers(NOW - 3 * HOUR, NOW + 3 * HOUR),
    weight=st.none() | st.floats(0, 10),
    factors=st.dictionaries(st.sampled_from(["value", "urgency_score", "size"]), st.floats(0, 10)),
)
ALL = PriorityRules(load(settings=[KINDS, URGENT, FACTORS]))


@given(specs)
def test_whatever_is_settled_has_a_priority_and_a_queue_and_settles_to_itself(
    spec: TaskSpec,
) -> None:
    once = ALL.settle(spec, NOW)
    assert once.priority is not None
    assert 0 <= once.priority <= 9
    assert once.queue is not None
    assert ALL.settle(once, NOW) == once
    unnamed = {"priority": None, "queue": None}
    assert msgspec.structs.replace(once, **unnamed) == msgspec.structs.replace(spec, **unnamed)


@given(specs, st.sampled_from(["value", "urgency_score", "size"]), st.floats(0, 10))
def test_a_higher_number_never_makes_a_task_less_urgent(
    spec: TaskSpec, name: str, more: float
) -> None:
    low = spec.factors.get(name)
    if low is None:
        return
    higher = {**spec.factors, name: max(low, more)}
    raised = msgspec.structs.replace(spec, factors=higher)
    assert priority_of(ALL.settle(raised, NOW)) <= priority_of(ALL.settle(spec, NOW))


def test_the_ends_of_the_score_are_the_ends_of_the_priorities() -> None:
    assert [urgency_as_priority(score) for score in (0, 5, 10)] == [9, 5, 0]
    assert sorted({urgency_as_priority(score / 10) for score in range(101)}) == list(range(10))
