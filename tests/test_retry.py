"""What becomes of a task when its attempt is over: one row of the table after the other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.policy.poison import SUSPECT_DEATHS
from actors.policy.retry import outcome
from autoglm.types import ErrorInfo, TaskState
from model.engine import Completion, EngineRequest
from model.flight import Flight, Lost
from runtime.config import RetryConfig
from runtime.store.protocol import ClaimedTask, Outcome

RETRY = RetryConfig(max_attempts=3, base_ms=100, cap_ms=5_000)


def ended(how: Completion | Lost, *, failures: int = 0, deaths: int = 0, trial: int = 0) -> Outcome:
    task = ClaimedTask(7, "id", 4, failures, deaths, 5, 0, stream=False)
    flight = Flight(EngineRequest("id", 4), task, trial=trial)
    flight.ended = how
    return outcome(flight, RETRY, draw=0.5)


def error(*, permanent: bool = False) -> Completion:
    return Completion("id", 4, error=ErrorInfo("engine_error", "no"), permanent=permanent)


def test_an_answer_succeeds_with_its_text_and_usage() -> None:
    seen = ended(
        Completion("id", 4, "text", "stop", prompt_tokens=3, completion_tokens=2, cached_tokens=1)
    )
    assert (seen.state, seen.charged, seen.usage.total_tokens) == (TaskState.SUCCEEDED, False, 5)
    assert seen.output is not None
    assert (seen.output.text, seen.output.usage.cached_tokens) == ("text", 1)


def test_a_death_of_the_engine_charges_nothing_and_is_remembered() -> None:
    seen = ended(Lost("killed"))
    assert (seen.state, seen.charged, seen.died) == (TaskState.PENDING, False, True)


def test_a_request_the_engine_gave_up_is_pending_again_uncharged() -> None:
    seen = ended(Completion("id", 4, error=ErrorInfo("aborted", "stopped")))
    assert (seen.state, seen.charged, seen.died) == (TaskState.PENDING, False, False)


@pytest.mark.parametrize("failures", [0, 1])
def test_a_failure_is_charged_and_waits_out_half_its_ceiling(failures: int) -> None:
    seen = ended(error(), failures=failures)
    assert (seen.state, seen.charged) == (TaskState.RETRYING, True)
    assert seen.retry_in_ms == 50 * 2**failures


def test_the_last_allowed_failure_is_the_end() -> None:
    seen = ended(error(), failures=2)
    assert (seen.state, seen.charged, seen.retry_in_ms) == (TaskState.DEAD, True, 0)


@pytest.mark.parametrize(("max_attempts", "failures"), [(1, 0), (5, 4)])
def test_a_task_may_have_its_own_number_of_attempts(max_attempts: int, failures: int) -> None:
    def state(failures: int) -> TaskState:
        task = ClaimedTask(7, "id", 4, failures, 0, 5, 0, stream=False, max_attempts=max_attempts)
        flight = Flight(EngineRequest("id", 4), task)
        flight.ended = error()
        return outcome(flight, RETRY, draw=0.5).state

    assert state(failures) is TaskState.DEAD
    assert [state(fewer) for fewer in range(failures)] == [TaskState.RETRYING] * failures


@given(st.integers(0, 60), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_drawn_evenly_from_nothing_to_a_ceiling_that_doubles_up_to_the_cap(
    failures: int, draw: float
) -> None:
    patient = RetryConfig(max_attempts=100)
    task = ClaimedTask(7, "id", 4, failures, 0, 5, 0, stream=False)
    flight = Flight(EngineRequest("id", 4), task)
    flight.ended = error()
    pause_ms = outcome(flight, patient, draw).retry_in_ms
    assert pause_ms == round(min(5_000, 100 * 2**failures) * draw)


def test_a_permanent_error_is_the_end_at_once() -> None:
    assert ended(error(permanent=True)).state is TaskState.DEAD


def test_a_suspect_that_kills_the_engine_alone_is_poison_and_the_evidence_is_kept() -> None:
    seen = ended(Lost("Segmentation fault"), deaths=9, trial=1)
    assert (seen.state, seen.charged, seen.died) == (TaskState.DEAD, True, True)
    assert seen.error is not None
    assert seen.error.code == "poison"
    assert "10 deaths" in seen.error.message
    assert "Segmentation fault" in seen.error.message


@pytest.mark.parametrize(("deaths", "trial"), [(SUSPECT_DEATHS, 0), (SUSPECT_DEATHS, 2), (0, 1)])
def test_a_death_proves_nothing_unless_a_suspect_was_alone(deaths: int, trial: int) -> None:
    seen = ended(Lost("killed"), deaths=deaths, trial=trial)
    assert (seen.state, seen.charged, seen.died) == (TaskState.PENDING, False, True)
