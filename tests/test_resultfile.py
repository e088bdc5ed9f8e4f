"""OUT and its errors file: what is kept, what is cut away, and whose they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.batchfile import COMPLETION_URL
from autoglm.bits import Bits
from autoglm.errors import AutoGLMError, Conflict, UsageError
from autoglm.resultfile import ResultFile, Results, error_line, errors_path, result_line
from autoglm.types import Answer, ErrorInfo, Output, Task, TaskState, Usage
from autoglm.wire import JobLineEnded

TASK = Task("task-id", TaskState.SUCCEEDED, created_at=5000, finished_at=7999)
OUTPUT = Output("Paris.", "stop", Usage(10, 3, 4))


def answer(number: int, job: str = "job") -> bytes:
    return result_line(job, JobLineEnded(number, number, f"mine-{number}"), TASK, OUTPUT, "glm")


def failure(number: int, job: str = "job") -> bytes:
    ended = JobLineEnded(number, number, error=ErrorInfo("not_json", "no object"))
    return error_line(job, ended)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def write(path: Path, *lines: bytes) -> None:
    path.write_bytes(b"".join(lines))


def take_up(out: Path, *, ordered: bool = True, blank: Iterable[int] = ()) -> tuple[Bits, Results]:
    bits = Bits()
    for number in blank:
        bits.add(number)
    with Results(out, ordered=ordered) as results:
        return results.take_up("job", bits), results


def lines_of(path: Path) -> list[int]:
    lines = path.read_bytes().splitlines()
    return [int(json.loads(line)["id"].rpartition("-")[2]) for line in lines]


# ── the lines ─────────────────────────────────────────────────────────────────────────────────


def test_an_answer_is_an_openai_batch_result() -> None:
    line = json.loads(answer(3))
    assert (line["id"], line["custom_id"], line["error"]) == ("job-3", "mine-3", None)
    assert line["response"]["status_code"] == 200
    body = line["response"]["body"]
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", "glm", 7)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": "Paris."}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 13
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 4


def test_a_completion_is_answered_as_one() -> None:
    ended = JobLineEnded(1, 1, url=COMPLETION_URL)
    body = json.loads(result_line("job", ended, TASK, OUTPUT, "glm"))["response"]["body"]
    assert (body["object"], body["choices"][0]["text"]) == ("text_completion", "Paris.")


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (JobLineEnded(1, 1, error=ErrorInfo("not_json", "why")), "not_json"),
        (
            JobLineEnded(
                1, 1, answer=Answer(Task("t", TaskState.DEAD, error=ErrorInfo("poison", "why")))
            ),
            "poison",
        ),
        (JobLineEnded(1, 1, answer=Answer(Task("t", TaskState.CANCELLED))), "cancelled"),
        (JobLineEnded(1, 1), "lost"),
    ],
)
def test_an_error_line_says_which_line_and_why(ended: JobLineEnded, code: str) -> None:
    line = json.loads(error_line("job", ended))
    assert (line["line"], line["error"]["code"]) == (1, code)
    assert line["error"]["message"]


@pytest.mark.parametrize(
    ("output", "errors"),
    [("out.jsonl", "out.errors.jsonl"), ("a.b.txt", "a.b.errors.txt"), ("o", "o.errors.jsonl")],
)
def test_the_errors_file_lies_beside_the_output(output: str, errors: str) -> None:
    assert errors_path(Path("/x") / output) == Path("/x") / errors


# ── taking up ─────────────────────────────────────────────────────────────────────────────────


def test_takes_up_what_both_files_hold(out: Path) -> None:
    write(out, answer(1), answer(3))
    write(errors_path(out), failure(2), failure(4))
    done, results = take_up(out)
    assert (done.prefix(), results.answered, results.failed) == (4, 2, 2)


def test_a_torn_last_line_is_cut_off(out: Path) -> None:
    write(out, answer(1), answer(2)[:-20])
    done, results = take_up(out)
    assert (done.prefix(), results.answered) == (1, 1)
    assert out.read_bytes() == answer(1)


@given(st.integers(0, 2000))
def test_cut_anywhere_only_whole_lines_stay(size: int) -> None:
    whole = b"".join(map(answer, range(1, 5)))
    path = Path(os.environ["PYTEST_FOLDER"]) / "cut.jsonl"
    path.write_bytes(whole[:size])
    done, results = take_up(path)
    kept = whole[:size].count(b"\n")
    assert (done.prefix(), results.answered, lines_of(path)) == (
        kept,
        kept,
        list(range(1, kept + 1)),
    )


@pytest.fixture(autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_FOLDER", str(tmp_path_factory.mktemp("cut")))


def test_what_lies_behind_a_gap_is_written_again(out: Path) -> None:
    write(out, answer(1), answer(4))
    write(errors_path(out), failure(2), failure(5))
    done, results = take_up(out)
    assert (done.prefix(), results.answered, results.failed) == (2, 1, 1)
    assert (lines_of(out), lines_of(errors_path(out))) == ([1], [2])


def test_a_blank_line_of_the_input_is_no_gap(out: Path) -> None:
    write(out, answer(1), answer(3))
    done, results = take_up(out, blank=[2])
    assert (done.prefix(), results.answered) == (3, 2)


def test_a_job_in_the_order_of_its_endings_has_no_gaps(out: Path) -> None:
    write(out, answer(9), answer(2), answer(5))
    done, results = take_up(out, ordered=False)
    assert (len(done), results.answered) == (3, 3)
    assert lines_of(out) == [9, 2, 5]


def test_zeros_where_the_disk_had_not_caught_up_are_cut_off(out: Path) -> None:
    write(out, answer(1), bytes(4096))
    take_up(out)
    assert out.read_bytes() == answer(1)


@pytest.mark.parametrize(
    "foreign", [b"somebody's diary\n", b'{"prompt": "the input"}\n', answer(1, "other"), b"x"]
)
def test_what_another_wrote_is_refused_and_kept(out: Path, foreign: bytes) -> None:
    write(out, foreign)
    with pytest.raises(Conflict, match="--fresh"):
        take_up(out)
    assert out.read_bytes() == foreign


def test_a_foreign_errors_file_is_refused_and_kept(out: Path) -> None:
    write(errors_path(out), b"mine\n")
    with pytest.raises(Conflict, match=r"out\.errors\.jsonl"):
        take_up(out)
    assert errors_path(out).read_bytes() == b"mine\n"


def test_clear_begins_anew_whatever_was_there(out: Path) -> None:
    write(out, b"somebody's diary\n")
    write(errors_path(out), failure(1))
    with Results(out, ordered=True) as results:
        results.clear()
        results.take_up("job", Bits())
        results.write([answer(1)], [])
    assert lines_of(out) == [1]
    assert not errors_path(out).exists()


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def test_goes_on_where_it_was_cut(out: Path) -> None:
    write(out, answer(1), answer(2)[:-5])
    with Results(out, ordered=True) as results:
        results.take_up("job", Bits())
        results.write([answer(2)], [failure(3)])
        results.write([answer(4)], [])
        results.finish()
    assert lines_of(out) == [1, 2, 4]
    assert lines_of(errors_path(out)) == [3]
    assert (results.answered, results.failed) == (3, 1)


def test_no_errors_file_is_made_before_there_is_an_error(out: Path) -> None:
    with Results(out, ordered=True) as results:
        results.take_up("job", Bits())
        results.write([answer(1)], [])
    assert not errors_path(out).exists()


def test_two_runs_never_write_one_file(out: Path) -> None:
    with Results(out, ordered=True), pytest.raises(Conflict, match="another autoglm run"):
        ResultFile(out).open()
    with Results(out, ordered=True):
        pass


def test_a_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing" / "out.jsonl"):
        with pytest.raises(UsageError, match=path.name):
            ResultFile(path).open()


def test_a_full_disk_is_told_and_the_next_run_goes_on() -> None:
    full = ResultFile(Path("/dev/full"))
    with pytest.raises(UsageError, match="not a regular file"):
        full.open()
    full._file = open("/dev/full", "r+b", buffering=0)  # noqa: SIM115, PTH123  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
    with pytest.raises(AutoGLMError, match="No space left"):
        full.write([answer(1)])
    full.close()
