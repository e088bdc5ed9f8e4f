"""A job against a scripted server: what a good server never does, and what one that dies does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm import wire
from autoglm.errors import Conflict, NotFound, ServerUnavailable, UsageError
from autoglm.job import JobOptions, Progress, run_job
from autoglm.retry import Patience
from autoglm.types import Answer, ErrorInfo, Output, Task, TaskState, Usage
from tests.scripted import HangUp, scripted

AT_ONCE = Patience(first_s=0, cap_s=0)


class FakeServer:
    """Holds one job; answers every line of it with its own number."""

    def __init__(self, *, submitted: int = 0, resumed: bool = False) -> None:
        self.lines: dict[int, wire.JobLine] = {}
        self.submitted = submitted
        self.resumed = resumed
        self.sealed = False
        self.pages: list[wire.JobLines] = []
        """Sent in place of what the lines say."""
        self.requests: list[wire.Request] = []
        self.deaths: dict[type[wire.Request], int] = {}
        """How many requests of a kind are carried out without the reply reaching anybody."""

    def __call__(self, request: wire.Request) -> list[wire.Reply]:
        self.requests.append(request)
        reply = self._reply(request)
        if self.deaths.get(type(request), 0) > 0:
            self.deaths[type(request)] -= 1
            raise HangUp
        return reply

    def _reply(self, request: wire.Request) -> list[wire.Reply]:
        match request:
            case wire.OpenJob(rid):
                opened = (self.submitted, self.sealed, self.resumed)
                return [wire.JobOpened(rid, "job", *opened)]
            case wire.SubmitLines(rid, _, lines, last):
                self.lines |= {line.line: line for line in lines}
                self.sealed |= last
                return [wire.LinesSubmitted(rid, max(self.lines, default=0))]
            case wire.GetJobLines(rid) if self.pages:
                page = self.pages.pop(0)
                return [wire.JobLines(rid, page.lines, page.done)]
            case wire.GetJobLines(rid, _, after):
                rest = [ended(line) for line in sorted(self.lines) if line > after]
                return [wire.JobLines(rid, tuple(rest), self.sealed)]
            case _:
                return []


def ended(
    line: int, cursor: int | None = None, error: ErrorInfo | None = None
) -> wire.JobLineEnded:
    task = Task(f"{line:026}", TaskState.SUCCEEDED, created_at=1000, finished_at=2000)
    answer = Answer(task, Output(f"answer {line}", "stop", Usage(2, 3)))
    return wire.JobLineEnded(line, cursor or line, answer=None if error else answer, error=error)


@pytest.fixture
def options(tmp_path: Path) -> JobOptions:
    lines = [json.dumps({"prompt": f"prompt {number}"}) for number in (1, 2, 3)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    return JobOptions(tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def written(options: JobOptions) -> list[int]:
    ids = [json.loads(line)["id"] for line in options.output.read_text().splitlines()]
    return [int(id.removeprefix("job-")) for id in ids]


async def run(options: JobOptions, server: FakeServer) -> Progress:
    async with scripted(server) as socket:
        return await run_job(options, socket, patience=AT_ONCE)


async def test_every_line_is_handed_in_and_written(options: JobOptions) -> None:
    server = FakeServer()
    done = await run(options, server)
    assert written(options) == [1, 2, 3]
    assert (done.answered, done.failed, done.total, done.submitted) == (3, 0, 3, 3)
    assert (done.prompt_tokens, done.completion_tokens) == (6, 9)


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_line_that_is_told_twice_is_written_once(tmp_path: Path, ordered: bool) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt":"a"}\n{"prompt":"b"}\n')
    options = JobOptions(tmp_path / "in.jsonl", tmp_path / "out.jsonl", ordered=ordered)
    server = FakeServer()
    server.pages = [
        wire.JobLines(0, (ended(1, 1),)),
        wire.JobLines(0, (ended(1, 2), ended(2, 3)), done=True),
    ]
    done = await run(options, server)
    assert written(options) == [1, 2]
    assert (done.answered, done.prompt_tokens) == (2, 4)


@pytest.mark.parametrize("kind", [wire.OpenJob, wire.SubmitLines, wire.GetJobLines])
async def test_goes_on_when_the_server_dies_after_doing_what_was_asked(
    options: JobOptions, kind: type[wire.Request]
) -> None:
    server = FakeServer()
    server.deaths[kind] = 2
    done = await run(options, server)
    assert (written(options), done.answered) == ([1, 2, 3], 3)


async def test_a_server_that_stays_away_is_told_when_patience_ends(options: JobOptions) -> None:
    server = FakeServer()
    server.deaths[wire.SubmitLines] = 10**9
    server.pages = [wire.JobLines(0)] * 1000
    async with scripted(server) as socket:
        with pytest.raises(ServerUnavailable):
            await run_job(options, socket, patience=Patience(window_s=0, first_s=0))


async def test_lines_that_the_server_has_are_not_handed_in_again(options: JobOptions) -> None:
    server = FakeServer(submitted=2, resumed=True)
    server.lines = {1: wire.JobLine(1), 2: wire.JobLine(2)}
    done = await run(options, server)
    handed_in = [r for r in server.requests if isinstance(r, wire.SubmitLines)]
    assert [line.line for request in handed_in for line in request.lines] == [3]
    assert (written(options), done.submitted, done.resumed) == ([1, 2, 3], 3, True)


async def test_what_the_files_hold_is_not_asked_for_again(options: JobOptions) -> None:
    server = FakeServer()
    await run(options, server)
    again = FakeServer(submitted=3, resumed=True)
    again.lines, again.sealed = server.lines, True
    before = options.output.read_bytes()
    done = await run(options, again)
    [asked] = [r for r in again.requests if isinstance(r, wire.GetJobLines)]
    assert (asked.after, done.answered) == (3, 3)
    assert options.output.read_bytes() == before


async def test_an_input_that_changes_while_it_is_read_is_refused_and_not_sealed(
    options: JobOptions,
) -> None:
    class Meddler(FakeServer):
        def __call__(self, request: wire.Request) -> list[wire.Reply]:
            if isinstance(request, wire.OpenJob):
                (options.output.parent / "in.jsonl").write_text('{"prompt":"another"}')
            return super().__call__(request)

    server = Meddler()
    server.pages = [wire.JobLines(0)] * 10_000
    async with scripted(server) as socket:
        with pytest.raises(Conflict, match="changed while it was read"):
            await run_job(options, socket)
    assert not server.sealed


async def test_a_job_that_is_pruned_while_it_is_read_ends_with_a_sentence_that_says_so(
    options: JobOptions,
) -> None:
    class Pruning(FakeServer):
        def _reply(self, request: wire.Request) -> list[wire.Reply]:
            if isinstance(request, wire.GetJobLines) and not self.pages:
                return [wire.Error(request.rid, "not_found", "no job job")]
            return super()._reply(request)

    server = Pruning()
    server.pages = [wire.JobLines(0, (ended(1),))]
    async with scripted(server) as socket:
        with pytest.raises(NotFound, match=r"out\.jsonl was pruned .* --fresh"):
            await run_job(options, socket)
    assert written(options) == [1], "what was written stays"


async def test_what_has_no_answer_goes_to_the_errors_file(options: JobOptions) -> None:
    server = FakeServer()
    bad = ended(2, error=ErrorInfo("not_json", "no"))
    server.pages = [wire.JobLines(0, (ended(1), bad, ended(3)), done=True)]
    done = await run(options, server)
    [error] = map(json.loads, (options.output.parent / "out.errors.jsonl").read_text().splitlines())
    assert (written(options), done.failed) == ([1, 3], 1)
    assert (error["line"], error["error"]["code"]) == (2, "not_json")


@pytest.mark.parametrize("input_name", ["out.jsonl", "out.errors.jsonl"])
async def test_the_input_is_never_written_over(tmp_path: Path, input_name: str) -> None:
    (tmp_path / input_name).write_text('{"prompt":"a"}\n')
    options = JobOptions(tmp_path / input_name, tmp_path / "out.jsonl", fresh=True)
    with pytest.raises(UsageError, match="is the input"):
        await run_job(options, tmp_path / "nobody")
    assert (tmp_path / input_name).read_text() == '{"prompt":"a"}\n'


@pytest.mark.parametrize(("what", "wanted"), [("engine", "vllm"), ("model", "smollm2")])
async def test_a_server_that_runs_another_is_refused_before_the_job_is_opened(
    tmp_path: Path, what: str, wanted: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt":"a"}\n')
    files = (tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    chosen = {what: wanted}
    options = JobOptions(*files, engine=chosen.get("engine"), model=chosen.get("model"))
    server = FakeServer()
    async with scripted(server) as socket:
        with pytest.raises(Conflict, match=f"not {wanted}"):
            await run_job(options, socket)
    assert server.requests == []
