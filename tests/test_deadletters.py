"""Dead letters in the store: looked at, retried, edited, discarded, and who did it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from autoglm.deadletter import Content, DeadLetter, DeadLetterInFull
from autoglm.errors import Conflict, NotFound
from autoglm.types import ErrorInfo, Sampling, TaskState
from autoglm.wire import GetEvents, ListDead
from runtime.store import deadletters, pruning
from runtime.store import jobprotocol as jp
from runtime.store import protocol as p
from runtime.store.deadprotocol import (
    Chosen,
    DiscardDead,
    EditDead,
    FetchDeadLetter,
    FetchDeadLetters,
    RetryDead,
)
from runtime.store.protocol import Settled
from tests.test_pruning import DAY, prune, rows, sealed_job
from tests.test_store import NOW, Bench, bench, line, spec, success

__all__ = ["bench"]


def dead(seq: int, attempt: int = 1, code: str = "engine_error", **more: Any) -> p.Outcome:
    error = ErrorInfo(code, f"attempt {attempt} failed")
    return p.Outcome(seq, attempt, TaskState.DEAD, error=error, charged=True, **more)


async def kill(bench: Bench, *seqs: int, code: str = "engine_error", now: int = NOW) -> None:
    for task in await bench.claim(*seqs):
        await bench.record(dead(task.seq, task.attempt, code), now=now)


async def retry(bench: Bench, *ids: str, tenant: str | None = None, **how: Any) -> Settled:
    return await bench.write(RetryDead(Chosen(tenant, ids, **how), by="ada"))


async def discard(bench: Bench, *ids: str, tenant: str | None = None, **how: Any) -> Settled:
    return await bench.write(DiscardDead(Chosen(tenant, ids, **how), by="ada"))


async def letters(bench: Bench, reach: str | None = None, **filter: Any) -> list[DeadLetter]:
    found, _ = await bench.store.query(FetchDeadLetters(reach, ListDead(0, **filter)))
    return list(found)


async def show(bench: Bench, id: str, tenant: str | None = None) -> DeadLetterInFull:
    return await bench.store.query(FetchDeadLetter(tenant, id))


async def task(bench: Bench, id: str) -> Any:
    return (await bench.store.query(p.FetchAnswers(None, (id,))))[id].task


async def people(bench: Bench, id: str) -> list[tuple[str, str | None]]:
    events, _, _ = await bench.store.query(p.FetchEvents(None, GetEvents(0, task=id)))
    return [(event.to_state.value, event.by) for event in events]


# ── looking ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_list_holds_what_is_dead_newest_first_and_pages(bench: Bench) -> None:
    await bench.insert(*(spec(id) for id in "abcd"))
    await kill(bench, 1, 2, code="bad")
    await kill(bench, 4)
    assert [(each.message_id, each.reason) for each in await letters(bench)] == [
        *(("d", "engine_error"), ("b", "bad"), ("a", "bad")),
    ]
    query = FetchDeadLetters(None, ListDead(0, limit=2))
    page, cursor = await bench.store.query(query)
    rest, end = await bench.store.query(FetchDeadLetters(None, ListDead(0, before=cursor, limit=2)))
    assert [each.message_id for each in (*page, *rest)] == ["d", "b", "a"]
    assert end is None
    assert [each.message_id for each in await letters(bench, reason="bad")] == ["b", "a"]


async def test_a_letter_in_a_list_is_cut_and_in_full_it_is_whole(bench: Bench) -> None:
    await bench.insert(spec("a", prompt="x" * 9000, sampling=Sampling(seed=2**63 - 1)))
    await kill(bench, 1)
    (short,) = await letters(bench)
    assert short.text == "x" * deadletters.EXCERPT_CHARS
    full = await show(bench, "a")
    assert full.content == Content(prompt="x" * 9000, sampling=Sampling(seed=2**63 - 1))
    assert (full.failures, full.attempt, full.died_at) == (1, 1, NOW)


async def test_the_errors_of_every_attempt_are_kept_with_their_times(bench: Bench) -> None:
    await bench.insert(spec("a"))
    first = p.Outcome(1, 1, TaskState.RETRYING, error=ErrorInfo("slow", "once"), charged=True)
    await bench.claim(1)
    await bench.record(first, now=NOW + 1)
    await bench.write(p.ReleaseDue(), NOW + 2)
    await bench.claim(1)
    await bench.record(p.Outcome(1, 2, TaskState.PENDING, died=True), now=NOW + 3)
    await kill(bench, 1, now=NOW + 4)
    await retry(bench, "a")
    await kill(bench, 1, now=NOW + 5)
    assert [(each.attempt, each.at, each.code) for each in (await show(bench, "a")).errors] == [
        *((1, NOW + 1, "slow"), (2, NOW + 3, "engine_died")),
        *((3, NOW + 4, "engine_error"), (4, NOW + 5, "engine_error")),
    ]


async def test_what_is_not_dead_is_no_dead_letter(bench: Bench) -> None:
    await bench.insert(spec("a"))
    with pytest.raises(Conflict, match="pending, no dead letter"):
        await show(bench, "a")
    with pytest.raises(NotFound):
        await show(bench, "b")


# ── retrying ─────────────────────────────────────────────────────────────────────────────────────


async def test_a_retried_letter_runs_again_at_its_old_place_with_failures_counted_anew(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"), spec("b"))
    await kill(bench, 1)
    assert await retry(bench, "a") == Settled(("a",), (), 1)
    assert bench.effects.ready == {("normal", "default"): [(NOW, 1)]}
    assert bench.effects.counts == {TaskState.DEAD: -1, TaskState.PENDING: 1}
    again = await task(bench, "a")
    assert (again.state, again.failures, again.attempt) == (TaskState.PENDING, 0, 1)
    assert (again.error, again.finished_at) == (None, None)
    (claimed,) = await bench.claim(1)
    assert (claimed.attempt, claimed.failures) == (2, 0)
    assert await bench.record(success(1, attempt=1)) == 0, "a late writer of the first life"
    assert await bench.record(success(1, attempt=2)) == 1


async def test_the_log_names_who_did_it_and_nobody_for_the_server_s_own_doing(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"))
    await kill(bench, 1)
    await retry(bench, "a")
    await kill(bench, 1)
    await discard(bench, "a")
    assert await people(bench, "a") == [
        *(("pending", None), ("running", None), ("dead", None), ("pending", "ada")),
        *(("running", None), ("dead", None), ("cancelled", "ada")),
    ]
    await bench.insert(spec("b"))
    await bench.write(p.CancelTasks(None, ("b",), by="bob"))
    assert await people(bench, "b") == [("pending", None), ("cancelled", "bob")]


@pytest.mark.parametrize("act", [retry, discard])
async def test_what_is_not_dead_stays_as_it_is(bench: Bench, act: Any) -> None:
    await bench.insert(*(spec(id) for id in "abc"))
    await bench.claim(1, 2)
    await bench.record(success(1))
    assert await act(bench, "a", "b", "c", "d") == Settled(("a", "b", "c"), ("d",), 0)
    assert await bench.states("a", "b", "c") == ["succeeded", "running", "pending"]


async def test_an_expiry_that_has_passed_is_lifted_and_one_to_come_stays(bench: Bench) -> None:
    await bench.insert(spec("a", expires_at=NOW), spec("b", expires_at=NOW + 50))
    await kill(bench, 1, 2, now=NOW - 1)
    await retry(bench, "a", "b")
    assert bench.effects.next_due_ms == NOW + 50
    await bench.write(p.ReleaseDue(), NOW + 60)
    assert await bench.states("a", "b") == ["pending", "expired"]


async def test_another_tenant_s_letters_are_as_if_they_did_not_exist(bench: Bench) -> None:
    await bench.insert(spec("a", tenant="ours"))
    await kill(bench, 1)
    content = Content(prompt="forged")
    assert await letters(bench, "theirs") == []
    assert await letters(bench, "theirs", tenant="ours") == []
    for act in (retry, discard):
        assert await act(bench, "a", tenant="theirs") == Settled((), ("a",), 0)
        settled = await act(bench, tenant="theirs", every=True, of_tenant="ours")
        assert settled.count == 0
    assert isinstance(await bench.write(EditDead("theirs", "a", 1, content)), NotFound)
    with pytest.raises(NotFound):
        await show(bench, "a", "theirs")
    assert await bench.states("a") == ["dead"]


async def test_all_that_fit_go_slice_by_slice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadletters, "SLICE", 2)
    await bench.insert(*(spec(f"t{place}") for place in range(5)), spec("x", tenant="x"))
    await kill(bench, 1, 2, 3, 6, code="bad")
    await kill(bench, 4, 5)
    counts, after = list[int](), 0
    while True:
        done = await retry(bench, every=True, of_tenant="default", reason="bad", after=after)
        counts.append(done.count)
        if done.next is None:
            break
        after = done.next
    assert counts == [2, 1, 0, 0]
    assert await bench.states("t0", "t1", "t2", "t3", "t4", "x") == [
        *("pending", "pending", "pending", "dead", "dead", "dead"),
    ]


async def test_a_task_that_waited_for_it_was_cancelled_and_stays_so(bench: Bench) -> None:
    await bench.insert(spec("a"), spec("b", after=("a",)))
    await kill(bench, 1)
    await retry(bench, "a")
    await bench.claim(1)
    await bench.record(success(1, attempt=2))
    assert await bench.states("a", "b") == ["succeeded", "cancelled"]


# ── editing ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_edited_letter_runs_with_its_new_content_and_the_first_one_is_kept(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"))
    await kill(bench, 1)
    await bench.write(EditDead(None, "a", 1, Content(prompt="better"), by="ada"))
    (claimed,) = await bench.claim(1)
    assert claimed.prompt == "better"
    await bench.record(dead(1, 2))
    await bench.write(EditDead(None, "a", 2, Content(prompt="best")))
    await kill(bench, 1)
    full = await show(bench, "a")
    assert full.original == Content(prompt="prompt a")
    assert full.content == Content(prompt="best")
    assert ("pending", "ada") in await people(bench, "a")


async def test_handing_in_the_original_or_the_edited_content_is_the_same_task(
    bench: Bench,
) -> None:
    await bench.insert(spec("a", key="k"))
    await kill(bench, 1)
    await bench.write(EditDead(None, "a", 1, Content(prompt="better")))
    for known in (spec("a", key="k"), spec("b", prompt="prompt a", key="k")):
        (accepted,) = await bench.insert(known)
        assert accepted.duplicate
        assert accepted.task is not None
        assert accepted.task.id == "a"
    (edited,) = await bench.insert(spec("c", prompt="better", key="k"))
    assert edited.duplicate
    (other,) = await bench.insert(spec("d", prompt="a third", key="k"))
    assert other.error is not None


async def test_of_two_who_edit_the_first_wins_and_the_same_edit_again_changes_nothing(
    bench: Bench,
) -> None:
    await bench.insert(spec("a"))
    await kill(bench, 1)
    edit = EditDead(None, "a", 1, Content(prompt="better"))
    assert await bench.write(edit) is None
    assert await bench.write(edit) is None
    assert bench.effects.counts == {}
    await kill(bench, 1)
    assert await bench.write(edit) is None, "its reply was lost for long"
    assert await bench.states("a") == ["dead"]
    late = msgspec.structs.replace(edit, content=Content(prompt="other"))
    assert isinstance(await bench.write(late), Conflict)
    assert (await show(bench, "a")).content == Content(prompt="better")


# ── jobs, and removal ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ordered", [True, False])
async def test_who_has_not_read_a_retried_line_reads_it_when_it_has_ended_again(
    bench: Bench, ordered: bool
) -> None:
    await sealed_job(bench, "job", line(1, spec("a")), line(2, spec("b")))
    await kill(bench, 1, 2)
    await retry(bench, "a")
    query = jp.FetchJobLines(None, "job", 0, ordered=ordered, limit=9)
    assert await bench.store.query(query) == ((), False)
    await bench.claim(1)
    await bench.record(success(1, attempt=2))
    assert bench.effects.jobs == {"job"}
    found, done = await bench.store.query(query)
    assert [each.answer.task.state.value for each in found] == ["succeeded", "dead"]
    assert [each.cursor for each in found] == [1, 2]
    assert done


async def test_who_has_read_all_lines_is_done_whatever_is_retried(bench: Bench) -> None:
    await sealed_job(bench, "job", line(1, spec("a")))
    await kill(bench, 1)
    await retry(bench, "a")
    query = jp.FetchJobLines(None, "job", 1, ordered=True, limit=9)
    assert await bench.store.query(query) == ((), True)


async def test_a_job_with_a_retried_line_stays_until_that_has_ended_long_ago(
    bench: Bench,
) -> None:
    for retried in ("a", "b"):
        await bench.insert(spec(f"before {retried}"))
    await sealed_job(bench, "job", line(1, spec("a")), line(2, spec("b")), now=NOW - 2 * DAY)
    await kill(bench, 3, 4, now=NOW - 2 * DAY)
    await retry(bench, "a")
    assert (await prune(bench, NOW - DAY)).jobs == 0
    await bench.claim(3)
    await bench.record(success(3, attempt=2), now=NOW)
    assert (await prune(bench, NOW - DAY)).jobs == 0
    assert (await prune(bench)).jobs == 1


async def test_a_letter_retried_while_its_job_is_removed_goes_on_by_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "SLICE_TASKS", 2)
    await sealed_job(bench, "job", *(line(place, spec(f"t{place}")) for place in range(1, 6)))
    await kill(bench, 1, 2, 3, 4, 5)
    await prune(bench, slices=1)
    await retry(bench, "t5")
    await prune(bench)
    assert (await task(bench, "t5")).job is None
    await bench.claim(5)
    await bench.record(success(5, attempt=2))
    await prune(bench)
    assert rows(bench) == {}


async def test_failures_and_originals_go_with_their_task(bench: Bench) -> None:
    await bench.insert(spec("a"))
    await kill(bench, 1)
    await bench.write(EditDead(None, "a", 1, Content(prompt="better")))
    await kill(bench, 1)
    assert rows(bench)["failure"] == 2
    assert rows(bench)["original"] == 1
    await prune(bench)
    assert rows(bench) == {}
