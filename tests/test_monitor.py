"""What the status tells of single tasks: what failed lately, and who is told of it."""

from __future__ import annotations

from actors.failures import ENGINE_DIED, KEPT, Failures
from actors.monitor import told_to
from actors.policy.retry import outcome
from autoglm.service import Service, TenantStatus
from autoglm.status import (
    BatchStatus,
    RecentFailure,
    RunningTask,
    ServerStatus,
    Status,
)
from autoglm.types import ErrorInfo, TaskState
from model.engine import GIVEN_UP, Completion, EngineRequest
from model.flight import Flight, Lost
from runtime.config import RetryConfig
from runtime.store.protocol import ClaimedTask

RETRY = RetryConfig()


def flight(
    number: int, error: ErrorInfo | None, *, permanent: bool = False, lost: str | None = None
) -> Flight[ClaimedTask]:
    id = f"t{number}"
    task = ClaimedTask(number, id, 1, 0, 0, 5, 0, stream=False, prompt="x", lane=("core", "acme"))
    made = Flight(EngineRequest(id, 1, prompt="x"), task)
    completion = Completion(id, 1, "text", "stop", error=error, permanent=permanent)
    made.ended = completion if lost is None else Lost(lost)
    return made


def noted(failures: Failures, *flights: Flight[ClaimedTask], at: int = 7) -> None:
    failures.note("engine-1", flights, [outcome(each, RETRY, 0.5) for each in flights], at)


def test_an_error_is_told_with_what_became_of_the_task() -> None:
    failures = Failures()
    noted(
        failures,
        flight(1, ErrorInfo("timeout", "too\nlong\x1b[2J")),
        flight(2, ErrorInfo("invalid", "no"), permanent=True),
    )
    assert failures.recent == [
        RecentFailure(
            *("t1", "acme", "core", 1, 7, "timeout", "too long", TaskState.RETRYING, "engine-1")
        ),
        RecentFailure(
            *("t2", "acme", "core", 1, 7, "invalid", "no", TaskState.DEAD, "engine-1"),
        ),
    ]


def test_what_succeeds_or_is_given_back_has_not_failed() -> None:
    failures = Failures()
    noted(failures, flight(1, None), flight(2, ErrorInfo(GIVEN_UP, "stopped")))
    assert failures.recent == []


def test_what_goes_back_with_an_engine_is_one_failure() -> None:
    failures = Failures()
    noted(failures, *(flight(number, None, lost="killed by SIGKILL") for number in range(1, 64)))
    [one] = failures.recent
    assert (one.id, one.code, one.message) == ("t1", ENGINE_DIED, "killed by SIGKILL")
    assert one.state == TaskState.PENDING


def test_recording_again_tells_nothing_again_and_the_oldest_go() -> None:
    failures = Failures()
    for number in (*range(1, KEPT + 4), KEPT + 3):
        noted(failures, flight(number, ErrorInfo("timeout", "")), at=number)
    assert [each.at for each in failures.recent] == list(range(4, KEPT + 4))


def test_a_tenant_is_told_of_its_own_alone() -> None:
    def served(name: str) -> TenantStatus:
        return TenantStatus(name, Service(1, 0.5, 0.5, 1, None, 0, None))

    def running(tenant: str) -> RunningTask:
        return RunningTask("id", tenant, "core", 5, 1, "engine-1", 1.0, "secret")

    def failure(tenant: str) -> RecentFailure:
        return RecentFailure("id", tenant, "core", 1, 0, "code", "secret", "dead", "engine-1")

    status = Status(
        ServerStatus("0", 1, 0, "running", "simulated", "smollm2", "/data"),
        {},
        (),
        (),
        BatchStatus(),
        tenants=(served("acme"), served("other")),
        slowest=(running("acme"), running("other")),
        failures=(failure("acme"), failure("other")),
    )
    assert told_to(None, status) is status
    told = told_to("acme", status)
    assert told.tenants == (served("acme"),)
    assert told.slowest == (running("acme"),)
    assert told.failures == (failure("acme"),)
