"""What a job writes: OpenAI batch result lines into OUT, what failed into OUT's errors file.

Every line begins with `{"id":"JOB-LINE"`, so the files alone tell which lines of which job they
hold. A process that is killed can leave a torn last line, one file behind the other, or (after a
power cut) garbage where the disk had not caught up. All of it is cut away when the job goes on:
the server has the answers, they are written again.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec

from autoglm.batchfile import COMPLETION_URL
from autoglm.bits import Bits
from autoglm.errors import AutoGLMError, Conflict, UsageError
from autoglm.text import one_line
from autoglm.types import ErrorInfo, Output, Task
from autoglm.wire import JobLineEnded


class _Head(msgspec.Struct):
    id: str


_NUMBER = re.compile("[1-9][0-9]{0,8}")
_head = msgspec.json.Decoder(_Head)
_encode = msgspec.json.Encoder().encode


def errors_path(output: Path) -> Path:
    """`out.jsonl` -> `out.errors.jsonl`."""
    return output.with_name(f"{output.stem}.errors{output.suffix or '.jsonl'}")


def result_line(job: str, ended: JobLineEnded, task: Task, output: Output, model: str) -> bytes:
    """An answer as a line of an OpenAI batch's output file."""
    usage = output.usage
    choice: dict[str, Any] = {"index": 0}
    if ended.url == COMPLETION_URL:
        prefix, kind = "cmpl", "text_completion"
        choice["text"] = output.text
    else:
        prefix, kind = "chatcmpl", "chat.completion"
        choice["message"] = {"role": "assistant", "content": output.text}
    body: dict[str, Any] = {
        "id": f"{prefix}-{task.id}",
        "object": kind,
        "created": (task.finished_at or task.created_at) // 1000,
        "model": model,
        "choices": [choice | {"logprobs": None, "finish_reason": output.finish_reason}],
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "total_tokens": usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        },
    }
    if output.degraded is not None:
        body["autoglm"] = {"degraded": output.degraded}
    line = {
        "id": f"{job}-{ended.line}",
        "custom_id": ended.custom_id,
        "response": {"status_code": 200, "request_id": task.id, "body": body},
        "error": None,
    }
    return _encode(line) + b"\n"


def error_line(job: str, ended: JobLineEnded) -> bytes:
    """A line that has no answer, and why."""
    why = why_none(ended)
    line = {
        "id": f"{job}-{ended.line}",
        "line": ended.line,
        "custom_id": ended.custom_id,
        "error": {"code": why.code, "message": why.message},
    }
    return _encode(line) + b"\n"


def why_none(ended: JobLineEnded) -> ErrorInfo:
    """Why there is no answer to a line."""
    task = ended.answer.task if ended.answer else None
    why = ended.error or (task and task.error)
    if why is None:
        state = task.state.value if task else "lost"
        why = ErrorInfo(state, f"the task ended as {state}")
    return why


class ResultFile:
    """A file of lines that begin with their id; opened for this process alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._created = False

    def open(self) -> None:
        """Create the file or open what is there, and lock it.

        Raises UsageError when that can't be, Conflict when another run writes it.
        """
        try:
            there = self.path.exists()
            if there and not stat.S_ISREG(self.path.stat().st_mode):
                raise UsageError(f"{self._name}: not a regular file")
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.fstat(self._file.fileno()).st_nlink:  # a run that was refused took it away
                raise BlockingIOError
            self._created = not there
        except BlockingIOError:
            self.close()
            raise Conflict(f"{self._name}: another autoglm run is writing it") from None
        except OSError as error:
            raise UsageError(f"{self._name}: {error.strerror}") from None

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return 0 if self._file is None else os.fstat(self._file.fileno()).st_size

    def lines(self) -> Iterator[bytes]:
        """From the beginning; the last one may lack its end."""
        if self._file is not None:
            self._file.seek(0)
            for line in self._file:  # noqa: UP028 - `yield from` would close the file with us
                yield line

    def scan(self, job: str) -> Iterator[tuple[int, int]]:
        """Each whole line that `job` wrote: its number and where the next one begins.

        Ends at the first line that is torn or garbage. Raises Conflict at another's line.
        """
        ours, end = f'{{"id":"{job}-'.encode(), 0
        for line in self.lines():
            torn = end > 0 and not line.endswith(b"\n")  # behind lines of ours, so ours too
            known = torn or line.startswith(ours) or ours.startswith(line)
            if not known and line.strip(b"\0"):
                raise Conflict(
                    f"{self._name} holds what this job did not write (another file, or answers of"
                    " a job that was pruned or that this server never had) and stays as it is;"
                    " give another output, or --fresh to answer everything anew",
                )
            number = _number_of(line)
            if number is None:
                return
            end += len(line)
            yield number, end

    def cut(self, size: int, *, durable: bool = False) -> None:
        """Drop what lies behind byte `size`, if `durable` beyond a power cut; go on there."""
        if self._file is not None:
            self._file.seek(size)
            self._file.truncate()
            if durable:
                os.fsync(self._file)

    def write(self, lines: Sequence[bytes]) -> None:
        """Append lines: all of them are with the system when this returns."""
        if not lines:
            return
        if self._file is None:
            self.open()
        assert self._file is not None
        try:
            self._file.write(b"".join(lines))
            self._file.flush()
        except OSError as error:
            raise AutoGLMError(
                f"{self._name}: {error.strerror}; the same command again goes on from there",
            ) from None

    def close(self, *, durable: bool = False) -> None:
        """Let go of the file; with `durable`, once it would survive a power cut.

        Without, one that is empty and was not there before is taken away again.
        """
        if self._file is None:
            return
        if durable:
            os.fsync(self._file)
        elif self._created and not self.size:
            self.path.resolve().unlink(missing_ok=True)
        self._file.close()
        self._file = None
        self._created = False

    @property
    def _name(self) -> str:
        return one_line(str(self.path))


class Results:
    """OUT and its errors file as one: which lines they hold, and adding more."""

    def __init__(self, output: Path, *, ordered: bool) -> None:
        self._answers = ResultFile(output)
        self._errors = ResultFile(errors_path(output))
        self._ordered = ordered
        self.answered = 0
        self.failed = 0

    def __enter__(self) -> Self:
        try:
            self._answers.open()
            if self._errors.path.exists():
                self._errors.open()
        except AutoGLMError:
            self._close(durable=False)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close(durable=False)

    def clear(self) -> None:
        """Begin anew."""
        self._answers.cut(0, durable=True)
        self._errors.close()
        self._errors.path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Of a new job. Whose lines there are is told by each of them, when they are taken up."""

    def record(self, job: str, lines: Sequence[JobLineEnded], model: str) -> None:
        """Append lines that have ended. Raises AutoGLMError when the disk is full."""
        answers: list[bytes] = []
        errors: list[bytes] = []
        for ended in lines:
            answer = ended.answer
            if answer and answer.result:
                answers.append(result_line(job, ended, answer.task, answer.result, model))
            else:
                errors.append(error_line(job, ended))
        self.write(answers, errors)

    def take_up(self, job: str, blank: Bits) -> Bits:
        """The lines that need not be written any more, `blank` ones among them.

        What the files hold beyond is cut off: torn lines, and in order all that has a gap before
        it. Raises Conflict when a file holds what this job did not write.
        """
        done = blank.copy()
        self.answered = self._keep(self._answers, job, done)
        self.failed = self._keep(self._errors, job, done)
        if not self._ordered:
            return done
        last = done.prefix()
        self.answered = self._keep(self._answers, job, done, last)
        self.failed = self._keep(self._errors, job, done, last)
        return Bits.up_to(last)

    def write(self, answers: Sequence[bytes], errors: Sequence[bytes]) -> None:
        """Append lines. Raises AutoGLMError when the disk is full."""
        self._answers.write(answers)
        self._errors.write(errors)
        self.answered += len(answers)
        self.failed += len(errors)

    def finish(self) -> None:
        """Make durable what was written."""
        self._close(durable=True)

    def _keep(self, file: ResultFile, job: str, done: Bits, last: int | None = None) -> int:
        kept = size = before = 0
        for number, end in file.scan(job):
            if (self._ordered and number <= before) or (last is not None and number > last):
                break
            kept, size, before = kept + 1, end, number
            done.add(number)
        file.cut(size)
        return kept

    def _close(self, *, durable: bool) -> None:
        self._answers.close(durable=durable)
        self._errors.close(durable=durable)


def _number_of(line: bytes) -> int | None:
    """The line's number; None when it is torn or garbage."""
    if not line.endswith(b"\n"):
        return None
    try:
        number = _head.decode(line).id.rpartition("-")[2]
    except (msgspec.DecodeError, RecursionError):
        return None
    # Of what is longer, or starts with a zero, we have written nothing.
    return int(number) if _NUMBER.fullmatch(number) else None
