"""A job: a file of prompts in, a file of answers out, driven against a server.

    IN ──lines──▶ SubmitLines ──▶ server ──▶ GetJobLines ──▶ OUT, OUT's errors file

The server holds what there is to do and what came of it, the files hold what was written, and
this process holds nothing that matters: killed at any moment, the same command goes on from what
the two have. Both directions run at once, a bounded number of lines at a time, so memory is flat
however long the input is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import anyio
import msgspec

from autoglm import wire
from autoglm.bits import Bits
from autoglm.errors import Conflict, NotFound, ServerBusy, UsageError
from autoglm.ids import Ids
from autoglm.inputfile import InputFile, Survey, open_input
from autoglm.jobinput import JobInput, JobResults, LinesInput
from autoglm.resultfile import errors_path
from autoglm.retry import Patience
from autoglm.session import Session
from autoglm.types import Usage

BATCH_LINES_MAX = 512
BATCH_BYTES_MAX = 2 * 1024 * 1024
PAGE_LINES = 512
SHOWN_LINES, SHOWN_CHARS = 4, 400
"""Of a page of answers, and of each of them, what a person who watches gets to see."""
PATIENCE = Patience(window_s=60, busy_s=math.inf, engine_s=math.inf)
"""A server may restart under a job; one that is full, or without an engine that can serve, is
waited for as long as it takes.
"""


class JobOptions(msgspec.Struct, frozen=True):
    """What a person says about a job. `engine` and `model`, if given, must be the server's."""

    input: Path | JobInput
    """A file of tasks, or what makes tasks of one."""
    output: Path
    fresh: bool = False
    ordered: bool = True
    engine: str | None = None
    model: str | None = None


class Progress(msgspec.Struct):
    """How far a job is, in lines; tokens count from when this process began."""

    job: str
    total: int
    """Lines that are not blank."""
    submitted: int = 0
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    resumed: bool = False
    cached_tokens: int = 0
    """Of `prompt_tokens`: found in the engine's cache, thanks to a shared prefix."""

    @property
    def done(self) -> int:
        return self.answered + self.failed


Report = Callable[[Progress], None]
Answers = Sequence[tuple[int, str]]
"""Lines of the input, counted from 1, with how their answers begin."""


async def run_job(
    options: JobOptions,
    socket: Path,
    report: Report = lambda _: None,
    patience: Patience = PATIENCE,
    ids: Ids | None = None,
    on_answers: Callable[[Answers], None] = lambda _: None,
) -> Progress:
    """Carry out the job, or the rest of it, and return how it ended; `report` hears of it often,
    `on_answers` of some of the answers as they are written.

    Raises UsageError for the files, Conflict when the output belongs to another job or the
    server runs another model, and ServerError when the server is away for too long. Then and
    when it is cancelled, the same call goes on where it stood.
    """
    source = LinesInput(options.input) if isinstance(options.input, Path) else options.input
    _check_paths(source.path, options.output)
    surveyed = source.survey()
    with source.results(options.output.absolute(), ordered=options.ordered) as results:
        async with Session(socket, None, patience) as session:
            _check_server(options, session.server, socket)
            if options.fresh:  # before the new job is there, whose answers the old would pass for
                results.clear()
            opened = await session.call(
                _opening(options, source, surveyed, session.server), wire.JobOpened
            )
            if not opened.resumed:
                results.begin()
            done = results.take_up(opened.job, surveyed.blank)
            progress = Progress(opened.job, surveyed.tasks, resumed=opened.resumed)
            job = _Job(session, options, source, opened, surveyed, results, done, progress, report)
            job.on_answers = on_answers
            try:
                await job.run(ids or Ids())
            except NotFound:
                raise NotFound(
                    f"the job of {options.output} was pruned from the server while it was read:"
                    " what was written stays; --fresh answers everything anew",
                ) from None
            results.finish()
            return progress


class _Job:
    """An opened job: hands in lines and writes what comes back, both at once."""

    def __init__(
        self,
        session: Session,
        options: JobOptions,
        source: JobInput,
        opened: wire.JobOpened,
        surveyed: Survey,
        results: JobResults,
        done: Bits,
        progress: Progress,
        report: Report,
    ) -> None:
        self._session = session
        self._options = options
        self._input = source
        self._opened = opened
        self._survey = surveyed
        self._results = results
        self._done = done
        self._progress = progress
        self._report = report
        self.on_answers: Callable[[Answers], None] = lambda _: None
        self._lines_max = BATCH_LINES_MAX
        """Lines in one request; fewer while the server has no room for more."""

    async def run(self, ids: Ids) -> None:
        self._tell()
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._submit, ids)
                await self._collect()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _submit(self, ids: Ids) -> None:
        """Hand in what the server does not have yet."""
        if self._opened.sealed:
            self._progress.submitted = self._progress.total
            return
        job, path = self._opened, self._input.path
        with open_input(path) as file:
            source = InputFile(file)
            for lines in batches(self._input.lines(source, job.job, ids, job.submitted)):
                await self._hand_in_all(lines)
            if source.sha256 != self._survey.sha256:
                raise Conflict(f"{path} changed while it was read; use --fresh")
        await self._hand_in((), last=True)
        self._progress.submitted = self._progress.total

    async def _hand_in_all(self, lines: tuple[wire.JobLine, ...]) -> None:
        """As many at a time as the server has room for, however long that takes."""
        retry = self._session.retry()
        while lines:
            some = lines[: self._lines_max]
            try:
                await self._hand_in(some)
            except ServerBusy as busy:
                self._lines_max = (len(some) + 1) // 2
                await retry.pause(busy)
            else:
                self._lines_max = min(2 * self._lines_max, BATCH_LINES_MAX)
                lines = lines[len(some) :]

    async def _hand_in(self, lines: tuple[wire.JobLine, ...], *, last: bool = False) -> None:
        message = wire.SubmitLines(0, self._opened.job, lines, last)
        patience = self._session.patience
        if len(lines) > 1:  # of fewer, a full server may have room for some
            patience = msgspec.structs.replace(patience, busy_s=0)
        await self._session.call(message, wire.LinesSubmitted, patience)
        self._progress.submitted += len(lines)
        self._tell()

    async def _collect(self) -> None:
        """Write what has ended until nothing is left."""
        ordered, page = self._options.ordered, wire.JobLines(0)
        cursor = self._done.prefix() if ordered else 0
        while not page.done:
            message = wire.GetJobLines(0, self._opened.job, cursor, ordered, PAGE_LINES)
            page = await self._session.call(message, wire.JobLines)
            if page.lines:
                cursor = page.lines[-1].cursor
                self._write(page.lines)
                self._tell()

    def _write(self, lines: tuple[wire.JobLineEnded, ...]) -> None:
        new = [ended for ended in lines if ended.line not in self._done]
        for ended in new:
            self._done.add(ended.line)
            if ended.answer and ended.answer.result:
                self._count(ended.answer.result.usage)
        self._results.record(self._opened.job, new, self._session.server.model)
        answered = ((each.line, each.answer) for each in lines[-SHOWN_LINES:])
        self.on_answers(
            [(n, got.result.text[:SHOWN_CHARS]) for n, got in answered if got and got.result]
        )

    def _count(self, usage: Usage) -> None:
        self._progress.prompt_tokens += usage.prompt_tokens
        self._progress.completion_tokens += usage.completion_tokens
        self._progress.cached_tokens += usage.cached_tokens

    def _tell(self) -> None:
        self._progress.answered = self._results.answered
        self._progress.failed = self._results.failed
        self._report(self._progress)


def batches(lines: Iterable[tuple[wire.JobLine, int]]) -> Iterator[tuple[wire.JobLine, ...]]:
    """As many lines at a time as go well into one frame; each comes with its size in bytes."""
    batch: list[wire.JobLine] = []
    total = 0
    for line, size in lines:
        if batch and (len(batch) == BATCH_LINES_MAX or total + size > BATCH_BYTES_MAX):
            yield tuple(batch)
            batch, total = [], 0
        batch.append(line)
        total += size
    if batch:
        yield tuple(batch)


def _check_paths(source: Path, output: Path) -> None:
    for written in (output, errors_path(output)):
        if written.exists() and source.exists() and written.samefile(source):
            raise UsageError(f"{written} is the input; give another output")


def _check_server(options: JobOptions, server: wire.Welcome, socket: Path) -> None:
    for what, wanted, has in (
        ("engine", options.engine, server.engine),
        ("model", options.model, server.model),
    ):
        if wanted is not None and wanted != has:
            raise Conflict(
                f"the server at {socket} runs the {what} {has}, not {wanted};"
                " stop it, or give another --socket",
            )


def _opening(
    options: JobOptions, source: JobInput, surveyed: Survey, server: wire.Welcome
) -> wire.OpenJob:
    matters = msgspec.msgpack.encode((options.ordered, server.engine, server.model)) + source.about
    return wire.OpenJob(
        0,
        output=str(options.output.resolve()),
        input_hash=surveyed.sha256,
        options_hash=hashlib.sha256(matters).hexdigest(),
        fresh=options.fresh,
    )
