"""A job: every line of a file answered once, whatever dies on the way.

    IN ──parse──▶ SubmitLines ──▶ server ──▶ GetJobLines ──▶ OUT, OUT's errors

Two loops run side by side. One hands lines in ahead, in bulk, and stops at the last; the other
asks for what has ended and writes it. All that must survive is at the server and in the files, so
taking a job up again is the same as beginning it: what the files hold is passed over, what the
server has is not handed in again. Memory is flat whatever the file's length.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import anyio
import msgspec

from autoglm import wire
from autoglm.batchfile import LineParser
from autoglm.bits import Bits
from autoglm.errors import AutoGLMError, UsageError
from autoglm.ids import Ids
from autoglm.inputfile import InputFile, Survey, open_input
from autoglm.resultfile import Results, error_line, result_line
from autoglm.retry import Patience
from autoglm.session import Session
from autoglm.spec import size_bytes

LINES_PER_SUBMIT = 512
SUBMIT_BYTES = 4 * 1024 * 1024
"""One frame holds no more than this, or a single line."""
PAGE = 256
PATIENCE = Patience(window_s=30, busy_s=3600)
"""A job outlasts a server that restarts, and waits for one that is full."""


class JobOptions(msgspec.Struct, frozen=True):
    """What a job is; all but `fresh` must be the same when it is taken up again."""

    input: Path
    output: Path
    ordered: bool = True
    fresh: bool = False


class Progress(msgspec.Struct, frozen=True):
    """How far a job is. `tokens` are those answered since this process began."""

    answered: int
    failed: int
    total: int
    tokens: int
    resumed: int
    """Lines that were done when this process began."""


class Job:
    """One job against one server."""

    def __init__(
        self,
        session: Session,
        options: JobOptions,
        survey: Survey,
        report: Callable[[Progress], None],
        ids: Ids,
    ) -> None:
        self._session = session
        self._options = options
        self._survey = survey
        self._report = report
        self._ids = ids
        self._done = Bits()
        """Lines that need no more attention: written, or blank."""
        self._tokens = 0
        self._resumed = 0
        self._failure: AutoGLMError | None = None

    async def run(self) -> Progress:
        """Until every line is in OUT or in its errors file.

        Raises Conflict when OUT belongs to another job, UsageError when a file can't be used or
        the input changes under us, and what keeps the server away for too long.
        """
        options, survey = self._options, self._survey
        with Results(options.output, ordered=options.ordered) as results:
            job = await self._open()
            if options.fresh:
                results.clear()
            self._done.update(survey.blank)
            results.take_up(job.job, self._done)
            self._resumed = results.answered + results.failed
            self._report(self._progress(results))
            async with anyio.create_task_group() as group:
                group.start_soon(self._hand_in, job, group.cancel_scope)
                await self._collect(job.job, results, group.cancel_scope)
            if self._failure is not None:
                raise self._failure
            results.finish()
            return self._progress(results)

    async def _open(self) -> wire.JobOpened:
        options, server = self._options, self._session.server
        what = f"{server.engine}\0{server.model}\0{options.ordered}"
        message = wire.OpenJob(
            0,
            output=str(options.output.absolute()),
            input_hash=self._survey.sha256,
            options_hash=hashlib.sha256(what.encode()).hexdigest(),
            fresh=options.fresh,
        )
        return await self._session.call(message, wire.JobOpened, PATIENCE)

    async def _hand_in(self, job: wire.JobOpened, scope: anyio.CancelScope) -> None:
        """Hand in the lines that the server does not have yet."""
        if job.sealed:
            return
        try:
            await self._hand_in_from(job.job, job.submitted)
        except AutoGLMError as error:
            self._fail(error, scope)

    async def _hand_in_from(self, job: str, submitted: int) -> None:
        parser = LineParser(job, self._ids)
        lines: list[wire.JobLine] = []
        size = 0
        with open_input(self._options.input) as file:
            source = InputFile(file)
            for number, data in source.lines():
                if number <= submitted:
                    continue
                line = parser.parse(number, data)
                if line is None:
                    continue
                more = size_bytes(line.task) if line.task is not None else 0
                if lines and (len(lines) >= LINES_PER_SUBMIT or size + more > SUBMIT_BYTES):
                    await self._submit(job, lines)
                    lines, size = [], 0
                lines.append(line)
                size += more
            if source.sha256 != self._survey.sha256:
                raise UsageError(
                    f"{self._options.input} changed while it was read; run it again with --fresh"
                )
        await self._submit(job, lines, last=True)

    async def _submit(self, job: str, lines: list[wire.JobLine], *, last: bool = False) -> None:
        message = wire.SubmitLines(0, job, tuple(lines), last)
        await self._session.call(message, wire.LinesSubmitted, PATIENCE)

    async def _collect(self, job: str, results: Results, scope: anyio.CancelScope) -> None:
        """Write what has ended until nothing more can come."""
        cursor = self._done.prefix() if self._options.ordered else 0
        done = False
        try:
            while not done:
                message = wire.GetJobLines(0, job, cursor, self._options.ordered, PAGE)
                page = await self._session.call(message, wire.JobLines, PATIENCE)
                self._write(job, page.lines, results)
                if page.lines:
                    cursor = page.lines[-1].cursor
                    self._report(self._progress(results))
                done = page.done
        except AutoGLMError as error:
            self._fail(error, scope)

    def _write(self, job: str, lines: tuple[wire.JobLineEnded, ...], results: Results) -> None:
        answers: list[bytes] = []
        errors: list[bytes] = []
        model = self._session.server.model
        for ended in lines:
            if ended.line in self._done:
                continue
            self._done.add(ended.line)
            answer = ended.answer
            if ended.error is None and answer is not None and answer.result is not None:
                answers.append(result_line(job, ended, answer.task, answer.result, model))
                self._tokens += answer.result.usage.completion_tokens
            else:
                errors.append(error_line(job, ended))
        results.write(answers, errors)

    def _progress(self, results: Results) -> Progress:
        return Progress(
            results.answered, results.failed, self._survey.tasks, self._tokens, self._resumed
        )

    def _fail(self, error: AutoGLMError, scope: anyio.CancelScope) -> None:
        """The first failure ends both loops."""
        if self._failure is None:
            self._failure = error
        scope.cancel()
