"""`autoglm export`: tasks with what they ask and what was answered, oldest first, as they are read.

A page at a time, so memory is flat however many there are. A file appears whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Self

import msgspec

from autoglm import argtypes, wire
from autoglm.client import Client
from autoglm.deadletter import Content
from autoglm.errors import AutoGLMError, UsageError
from autoglm.ids import Ids
from autoglm.paths import places
from autoglm.session import Session
from autoglm.table import csv_line
from autoglm.text import one_line, printable
from autoglm.types import Output, Task, TaskState, to_json

SUMMARY = "print tasks with their prompts and answers, for other programs"
EXAMPLES = """\
examples:
  autoglm export -o all.jsonl                             everything, oldest first
  autoglm export --since 2d --state succeeded | jq -r .result.text
  autoglm export --format csv --queue core -o core.csv
  autoglm export --format csv --for-spreadsheet -o a.csv  no cell can act as a formula
"""
COLUMNS = (
    *("id", "state", "tenant", "queue", "kind", "key", "job", "priority", "attempt"),
    *("created_at", "started_at", "finished_at", "prompt", "answer", "finish_reason"),
    *("prompt_tokens", "completion_tokens", "degraded", "error_code", "error_message"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class ExportedTask(msgspec.Struct, frozen=True):
    """A line of `export`: `content` is what the task asks for, null when it is above 8 MiB."""

    id: str
    state: TaskState
    task: Task
    content: Content | None
    result: Output | None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--format", choices=("jsonl", "csv"), help="default: by FILE, or jsonl")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: stdout")
    parser.add_argument("--force", action="store_true", help="replace FILE where there is one")
    parser.add_argument("--queue", help="of this queue alone")
    parser.add_argument(
        "--since", type=argtypes.duration, metavar="2d", help="handed in no longer ago than this"
    )
    parser.add_argument("--state", type=argtypes.state, help=", ".join(TaskState))
    parser.add_argument("--tenant", help="of this tenant alone")
    parser.add_argument("--job", help="of this job alone")
    parser.add_argument(
        "--for-spreadsheet",
        action="store_true",
        help="CSV: put ' before what would be a formula, and drop control characters",
    )


async def export(arguments: argparse.Namespace) -> int:
    """The command."""
    ids = Ids()
    since = None if arguments.since is None else ids.now_ms() - int(arguments.since * 1000)
    wanted = wire.ExportTasks(
        0,
        () if arguments.state is None else (arguments.state,),
        *(arguments.tenant, arguments.queue, arguments.job, since),
    )
    named = arguments.output.suffix.lower() if arguments.output else ""
    as_csv = (arguments.format or named.removeprefix(".")) == "csv"
    as_bytes = _csv_line(guarded=arguments.for_spreadsheet) if as_csv else _json_line
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None) as client:
        with _Out(arguments.output, replace=arguments.force) as out:
            if as_csv:
                out.file.write(_row(COLUMNS))
            count = 0
            async for task in exported(client.session, wanted):
                out.file.write(as_bytes(task))
                count += 1
    if arguments.output is not None or sys.stderr.isatty():
        print(f"autoglm: {count} exported", file=sys.stderr)
    return 0


async def exported(session: Session, wanted: wire.ExportTasks) -> AsyncIterator[wire.Exported]:
    """Every task that fits, oldest first, page by page."""
    after: int | None = wanted.after
    while after is not None:
        message = msgspec.structs.replace(wanted, after=after)
        page = await session.call(message, wire.ExportPage)
        for task in page.tasks:
            yield task
        after = page.next


class _Out:
    """Stdout, or a file that gets its name once it is whole."""

    def __init__(self, path: Path | None, *, replace: bool) -> None:
        """Raises UsageError for a file that is there and not to be replaced."""
        if path is not None and not replace and os.path.lexists(path):
            raise UsageError(f"{one_line(str(path))} is there already; --force replaces it")
        self._path = path
        self._part = None if path is None else path.with_name(f"{path.name}.part")
        self.file: BinaryIO = sys.stdout.buffer

    def __enter__(self) -> Self:
        try:
            if self._part is not None:
                self.file = self._part.open("wb")
        except OSError as error:
            raise AutoGLMError(f"{one_line(str(self._part))}: {error.strerror}") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._path is None or self._part is None:
            self.file.flush()
            return
        if kind is None:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()
            self._part.replace(self._path)
        else:
            self.file.close()
            self._part.unlink(missing_ok=True)


def _json_line(found: wire.Exported) -> bytes:
    task = found.task
    return to_json(ExportedTask(task.id, task.state, task, found.content, found.result)) + b"\n"


def _csv_line(*, guarded: bool) -> Callable[[wire.Exported], bytes]:
    def line(found: wire.Exported) -> bytes:
        task, result, error = found.task, found.result, found.task.error
        cells = (
            *(task.id, task.state.value, task.tenant, task.queue, task.kind, task.key, task.job),
            *(task.priority, task.attempt),
            *map(_moment, (task.created_at, task.started_at, task.finished_at)),
            _prompt(found.content),
            *((result.text, result.finish_reason) if result else (None, None)),
            *(
                (result.usage.prompt_tokens, result.usage.completion_tokens)
                if result
                else (None, None)
            ),
            task.degraded,
            *((error.code, error.message) if error else (None, None)),
        )
        return _row(tuple(map(_harmless, cells)) if guarded else cells)

    return line


def _harmless(cell: object) -> object:
    """A text that no spreadsheet takes for a formula, without control characters."""
    if not isinstance(cell, str):
        return cell
    text = printable(cell)
    return f"'{text}" if cell.startswith(_FORMULA) or text.startswith(_FORMULA) else text


def _row(cells: tuple[object, ...]) -> bytes:
    return csv_line(cells).encode()


def _prompt(content: Content | None) -> str | None:
    """The last message, or the prompt."""
    if content is None:
        return None
    return content.prompt if content.prompt is not None else content.messages[-1].content


def _moment(unix_ms: int | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    if unix_ms is None:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds")
