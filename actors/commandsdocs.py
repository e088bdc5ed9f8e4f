"""Writes docs/commands.md: `python -P -m actors.commandsdocs > docs/commands.md`.

Commands and examples are those of their help, fields of JSON those of the structs that are printed;
a test holds the file against what this makes.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

import msgspec

from actors.doctor import Finding
from actors.main import EXTRA
from autoglm import cli
from autoglm.deadletter import DeadLetter, DeadLetterInFull
from autoglm.degrade import QueueStatus
from autoglm.drill import DrillReport
from autoglm.examples import EXIT_CODES, leaves
from autoglm.exporting import COLUMNS, ExportedTask
from autoglm.job import Progress
from autoglm.pruning import Removed
from autoglm.service import TenantStatus
from autoglm.show import Shown
from autoglm.status import Status
from autoglm.types import Event, Output, Task

SHAPES: tuple[tuple[tuple[str, ...], str, type[msgspec.Struct]], ...] = (
    (("submit", "get"), "one object; with `--wait` once the task has ended", Shown),
    (("list", "archive list"), "one for each task", Task),
    (("cancel ID", "edit", "pause ID", "resume ID"), "one for each task", Task),
    (("archive requeue ID", "dead retry ID", "dead edit"), "one for each task", Task),
    (("submit --template",), "one for each row that was taken", Task),
    (("export",), "one for each task, also without `--json`", ExportedTask),
    (("events",), "one for each change", Event),
    (("status",), "one object", Status),
    (("queues", "queue list"), "one for each queue", QueueStatus),
    (("tenants",), "one for each tenant", TenantStatus),
    (("dead list",), "one for each dead letter", DeadLetter),
    (("dead show",), "one object", DeadLetterInFull),
    (("run",), "one object, when the job is over; the answers are in OUT", Progress),
    (("prune",), "one object", Removed),
    (("doctor",), "one for each check", Finding),
    (("drill",), "one object", DrillReport),
)
_HEAD = """\
# Commands

<!-- made by: python -P -m actors.commandsdocs > docs/commands.md -->

`autoglm COMMAND --help` has every option. Data goes to stdout, everything else to stderr. On a
terminal there are tables, colours (not with `NO_COLOR`) and times such as `2 min ago`; into a pipe
go plain lines with whole ids and moments, or one JSON value a line with `--json`.

{exit_codes}
- **Ids** can be shortened, wherever a command takes one, to a beginning or an end of six characters
  or more: the end is what `list` shows on a terminal. An end is looked for among the newest
  100,000 tasks. One that fits several is refused with their names.
- **Durations** are written `90`, `30s`, `10m`, `2h`, `30d`.
- **Completion**: `autoglm completion bash|zsh|fish`.

"""
_JSON = """\
## JSON

Fields are only ever added. Moments are Unix milliseconds; what is not there is `null` or left out.
"""
_MORE = """\
A `task` has {task}. A `result` has {result}, and `usage` has `prompt_tokens`, `completion_tokens`
and `cached_tokens`. `content` has `messages` (each with `role` and `content`) or `prompt`, and
`sampling`. `backup` prints `file`, `tasks` and `bytes`. What counts (`cancel --job`, `dead retry
--all`) prints one object with the number. An error prints nothing on stdout: it is one line on
stderr, and the exit code. [operating.md](operating.md) and the README tell what is in the files
of `run`, [protocol.md](protocol.md) what codes errors have.

## CSV of `export`

{columns}. Moments are ISO 8601 in UTC; `prompt` is the last message. Cells are written as they
are: with `--for-spreadsheet` one that begins with `=`, `+`, `-`, `@`, a tab or a carriage return
gets a `'` before it, and control characters are dropped.

## Backup and restore

`autoglm backup DIR|FILE` copies the store as it is at one moment, while a server writes or
without one, reads every page of the copy, and takes nobody's place. To restore, give the copy a
folder of its own, or stop the server, move `queue.sqlite3` and what begins so out of its folder
and put the copy there as `queue.sqlite3`:

```sh
autoglm serve &
until autoglm status > /dev/null 2>&1; do sleep 0.1; done
ID=$(autoglm submit "Worth keeping.")
autoglm get "$ID" --wait
autoglm backup copy.sqlite3
mkdir -m 700 restored
cp copy.sqlite3 restored/queue.sqlite3
autoglm serve --data-dir restored &
until autoglm status --data-dir restored > /dev/null 2>&1; do sleep 0.1; done
autoglm get "$ID" --data-dir restored --wait
kill %1 %2; wait
```

What was accepted after the copy is not in it; what ran when it was made is run again.
"""


def rendered() -> str:
    """The whole file."""
    return "\n".join([_HEAD.format(exit_codes=_codes()), *_commands(), *_shapes()])


def _codes() -> str:
    return textwrap.fill(f"Exit codes: {EXIT_CODES.partition(':')[2].strip()}.", 98) + "\n"


def _commands() -> Iterator[str]:
    yield "## Each command\n"
    for name, command in leaves(cli.build_parser(EXTRA)):
        yield f"### {name}\n"
        yield f"{command.description}\n"
        if command.epilog:
            yield f"```text\n{command.epilog.strip()}\n```\n"


def _shapes() -> Iterator[str]:
    yield _JSON
    yield "| command | prints | fields |"
    yield "|---|---|---|"
    for names, what, kind in SHAPES:
        yield f"| {', '.join(f'`{name}`' for name in names)} | {what} | {_fields(kind)} |"
    yield ""
    columns = ", ".join(f"`{name}`" for name in COLUMNS)
    yield _MORE.format(task=_fields(Task), result=_fields(Output), columns=columns)


def _fields(kind: type[msgspec.Struct]) -> str:
    return ", ".join(f"`{field.encode_name}`" for field in msgspec.structs.fields(kind))


if __name__ == "__main__":
    sys.stdout.write(rendered())
