"""The store's health: rests are bounded and end by themselves, damage is for good."""

from __future__ import annotations

import pytest

from autoglm.errors import ServerError, ServerUnavailable
from runtime.store.health import PAUSES, RETRY_S, Health
from runtime.store.protocol import StoreBlocked, StoreDamaged

FULL = StoreBlocked("the store /x: the disk is full; free some space")


def test_a_sound_store_refuses_nobody() -> None:
    health = Health()
    health.committed()
    assert health.refusal(0) is None
    assert health.trouble is None


def test_a_blocked_store_refuses_with_the_reason_and_when_to_come_back_then_lets_one_try() -> None:
    health = Health()
    health.blocked(FULL, now=100)
    refusal = health.refusal(100)
    assert isinstance(refusal, ServerUnavailable)
    assert str(refusal) == str(FULL)
    assert refusal.retry_after is not None
    assert refusal.retry_after >= RETRY_S
    assert health.refusal(100 + PAUSES.delay_first_s) is None
    assert health.trouble == str(FULL)


def test_pauses_double_up_to_a_bound_and_are_short_again_after_a_success() -> None:
    health, now, pauses = Health(), 0.0, list[float]()
    for _ in range(100):
        health.blocked(FULL, now)
        pauses.append(health.rest_s(now))
        now += pauses[-1]
        health.trying(now)
    assert pauses[:4] == pytest.approx([0.25, 0.5, 1, 2])
    assert pauses[4:] == pytest.approx([PAUSES.delay_max_s] * 96)
    health.committed()
    assert health.trouble is None
    health.blocked(FULL, now)
    assert health.rest_s(now) == pytest.approx(PAUSES.delay_first_s)


def test_damage_is_refused_for_good_and_a_later_success_does_not_mend_it() -> None:
    health = Health()
    health.damaged(StoreDamaged("a page"))
    health.damaged(StoreDamaged("another page"))
    health.committed()
    refusal = health.refusal(1e9)
    assert type(refusal) is ServerError
    assert refusal.retry_after is None
    assert health.trouble == "a page"
