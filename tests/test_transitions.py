"""The table of legal transitions."""

from __future__ import annotations

import pytest

from autoglm.types import TaskState as S
from runtime.store.transitions import LEGAL, legal


@pytest.mark.parametrize("state", [state for state in S if state.ended and state is not S.DEAD])
def test_nothing_leaves_a_state_that_has_ended(state: S) -> None:
    assert not any(legal(state, after) for after in S)


def test_a_dead_letter_is_retried_or_discarded_and_nothing_else() -> None:
    assert {after for after in S if legal(S.DEAD, after)} == {S.PENDING, S.CANCELLED}


@pytest.mark.parametrize("state", [state for state in S if not state.ended])
def test_whatever_has_not_ended_can_be_cancelled_and_can_expire(state: S) -> None:
    assert legal(state, S.CANCELLED)
    assert legal(state, S.EXPIRED)


def test_only_a_running_task_succeeds_fails_or_dies() -> None:
    for after in (S.RETRYING, S.DEAD):
        assert {before for before, to in LEGAL if to is after and before is not to} == {S.RUNNING}
    answered_without_an_engine = S.PENDING
    succeeding = {before for before, to in LEGAL if to is S.SUCCEEDED}
    assert succeeding == {S.RUNNING, answered_without_an_engine}


def test_only_a_pending_task_is_claimed() -> None:
    assert {before for before, to in LEGAL if to is S.RUNNING} == {S.PENDING}


def test_every_state_can_be_reached_and_only_three_begin() -> None:
    reached = {after for _, after in LEGAL}
    assert reached == set(S)
    assert {after for before, after in LEGAL if before is None} == {
        *(S.PENDING, S.BLOCKED, S.SCHEDULED),
    }


def test_what_waits_can_be_edited_and_nothing_else_stays_what_it_is() -> None:
    waiting = {S.SCHEDULED, S.BLOCKED, S.PAUSED, S.ARCHIVED, S.PENDING, S.RETRYING}
    assert {state for state in S if legal(state, state)} == waiting
