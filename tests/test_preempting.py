"""Whose slot an urgent task may take: its own tenant's, and what another has beyond its share."""

from __future__ import annotations

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.rules import ConfiguredRules
from actors.preempting import Preemption
from autoglm.types import Sampling
from model.engine import EngineRequest, continuable
from model.flight import Flight
from runtime.config import Config
from runtime.queueconfig import TenantConfig
from runtime.store.protocol import URGENT_PRIORITY, ClaimedTask

NOW, TOKENS_PER_S = 1.0, 40.0
RULES = ConfiguredRules(Config(tenants={"heavy": TenantConfig(weight=3)}))
PLAIN, SEEDED = Sampling(), Sampling(seed=1)
Flying = Flight[ClaimedTask]
TENANTS = ("a", "b", "heavy")


def task(seq: int, tenant: str, priority: int, sampling: Sampling = PLAIN) -> ClaimedTask:
    made = ClaimedTask(seq, f"task-{seq}", 1, 0, 0, priority, seq, stream=False, prompt="p " * 40)
    return msgspec.structs.replace(made, lane=("normal", tenant), sampling=sampling)


def flight(seq: int, tenant: str, priority: int = 5, sampling: Sampling = PLAIN) -> Flying:
    given = task(seq, tenant, priority, sampling)
    return Flight(EngineRequest(given.id, 1, prompt=given.prompt, sampling=sampling), given)


def stopped(flying: list[Flying], waiting: list[ClaimedTask]) -> list[ClaimedTask]:
    chosen = Preemption().choose(flying, waiting, RULES, NOW, TOKENS_PER_S)
    return [each.task for each in chosen]


FLYING = st.lists(
    st.builds(
        flight,
        st.just(0),
        st.sampled_from(TENANTS),
        st.integers(0, 9),
        st.sampled_from([PLAIN, SEEDED]),
    ),
    min_size=1,
    max_size=12,
).map(lambda drawn: [renumbered(seq, each) for seq, each in enumerate(drawn)])
WAITING = st.lists(st.sampled_from(TENANTS), min_size=1, max_size=12).map(
    lambda tenants: [task(100 + n, tenant, 0) for n, tenant in enumerate(tenants)]
)


def renumbered(seq: int, drawn: Flying) -> Flying:
    return flight(seq, drawn.task.lane[1], drawn.task.priority, drawn.task.sampling)


@given(FLYING, WAITING)
def test_a_tenant_within_its_share_is_stopped_for_its_own_alone(
    flying: list[Flying], waiting: list[ClaimedTask]
) -> None:
    held = Counter(each.task.lane[1] for each in flying)
    wanted = Counter(each.lane[1] for each in waiting)
    taken = Counter(each.lane[1] for each in stopped(flying, waiting))
    total = sum(RULES.tenant_weight(name) for name in {*held, *wanted})
    for tenant, count in taken.items():
        part = len(flying) * RULES.tenant_weight(tenant) / total
        others = count - min(count, wanted[tenant])
        assert not others or held[tenant] - others >= part


@given(FLYING, WAITING)
def test_nobody_urgent_is_stopped_and_no_more_than_wait(
    flying: list[Flying], waiting: list[ClaimedTask]
) -> None:
    chosen = stopped(flying, waiting)
    assert all(each.priority > URGENT_PRIORITY for each in chosen)
    assert len({each.seq for each in chosen}) == len(chosen) <= len(waiting)


@given(FLYING, WAITING)
def test_what_would_begin_anew_is_stopped_last(
    flying: list[Flying], waiting: list[ClaimedTask]
) -> None:
    """Whoever has to begin anew is stopped only if nobody of its tenant could have gone on."""
    chosen = stopped(flying, waiting)
    seqs = {each.seq for each in chosen}
    for tenant in {each.lane[1] for each in chosen if not continuable(each.sampling)}:
        assert not [
            each.task
            for each in flying
            if each.task.lane[1] == tenant
            and each.task.seq not in seqs
            and each.task.priority > URGENT_PRIORITY
            and continuable(each.task.sampling)
        ]


def test_another_tenant_gives_what_it_has_beyond_its_share() -> None:
    flying = [flight(seq, "a") for seq in range(4)]
    waiting = [task(9, "b", 0), task(10, "b", 0), task(11, "b", 0)]
    assert [each.seq for each in stopped(flying, waiting)] == [0, 1]


def test_by_its_weight_a_tenant_may_hold_more() -> None:
    flying = [flight(seq, "heavy") for seq in range(4)]
    assert len(stopped(flying, [task(9, "b", 0), task(10, "b", 0)])) == 1
    assert stopped([*flying[:3], flight(3, "b", 1)], [task(9, "b", 0)]) == []


def test_what_can_not_be_stopped_is_no_part_of_what_a_tenant_may_lose() -> None:
    waiting = [task(9, "b", 0)]
    assert [each.seq for each in stopped([flight(0, "a", 0), *bulk("a", 1, 2)], waiting)] == [1]
    first = flight(0, "a", sampling=SEEDED)
    assert [each.seq for each in stopped([first, *bulk("a", 1, 2)], waiting)] == [1]


def bulk(tenant: str, *seqs: int) -> list[Flying]:
    return [flight(seq, tenant) for seq in seqs]
