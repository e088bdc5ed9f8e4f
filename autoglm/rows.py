"""One task a row: what `run` and `submit` make of `--template` and `--from`.

`submit` hands rows in as they are read, a few hundred at a time, and forgets them. A row's task has
a key made of the row's number and all that is asked, so the same command again stores nothing
twice: rows that were added are handed in, and one that was changed is another task.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Iterator

import msgspec

from autoglm import wire
from autoglm.client import Client
from autoglm.errors import ServerBusy, UsageError
from autoglm.ids import Ids
from autoglm.options import ANSWER_COLUMN, task_options
from autoglm.paths import places
from autoglm.retry import Patience
from autoglm.spec import TaskOptions, size_bytes
from autoglm.tablejob import TableInput
from autoglm.text import one_line
from autoglm.types import ErrorInfo, TaskSpec, to_json

BATCH_TASKS_MAX = 512
BATCH_BYTES_MAX = 2 * 1024 * 1024
_PATIENCE = Patience(window_s=60, busy_s=math.inf)
_KEY_CHARS = 32
_NONE: TaskOptions = {"tenant": "default", "factors": [], "stop": []}
"""What task_options gives where nothing was said, besides None."""


def table_of(arguments: argparse.Namespace, command: str) -> TableInput:
    """Raises UsageError for what is missing, and what can't stand together."""
    if arguments.template is None or arguments.table is None:
        raise UsageError(f"{command}: --template and --from go together")
    answer = getattr(arguments, "answer_column", None) or ANSWER_COLUMN
    return TableInput(arguments.table, arguments.template, task_options(arguments), answer)


def refuse_task_options(arguments: argparse.Namespace) -> None:
    """Of a file of tasks, where each says it for itself. Raises UsageError."""
    given = {**task_options(arguments), "answer_column": arguments.answer_column}
    for name, value in given.items():
        if value is not None and value != _NONE.get(name):
            option = {"factors": "factor", "attempt_timeout": "timeout"}.get(name, name)
            raise UsageError(
                f"run: --{option.replace('_', '-')} goes with --template; each line of a file of"
                " tasks says it for itself"
            )


async def submit(arguments: argparse.Namespace) -> int:
    """Hand in every row and print its task's id; 1 when a row was none."""
    if arguments.text is not None or arguments.wait or arguments.stream:
        raise UsageError(
            "submit: --template takes neither a prompt nor --wait or --stream;"
            " to have the answers: autoglm run --template … --from … -o OUT.csv"
        )
    table = table_of(arguments, "submit")
    failed = 0
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None, patience=_PATIENCE) as client:
        for batch in _batches(table, Ids()):
            specs = tuple(spec for _, spec in batch if isinstance(spec, TaskSpec))
            accepted = iter(await _hand_in(client, specs))
            for number, spec in batch:
                error = spec if isinstance(spec, ErrorInfo) else None
                if error is None:
                    taken = next(accepted)
                    error = taken.error
                    if taken.task is not None:
                        _tell(to_json(taken.task).decode() if arguments.json else taken.task.id)
                if error is not None:
                    failed += 1
                    where = f"{one_line(str(table.path))} row {number}"
                    print(f"autoglm: {where}: {one_line(error.message)}", file=sys.stderr)
    return 1 if failed else 0


async def _hand_in(client: Client, specs: tuple[TaskSpec, ...]) -> list[wire.Accepted]:
    """As many at a time as the server has room for, however long that takes."""
    accepted: list[wire.Accepted] = []
    size, retry = len(specs), client.session.retry()
    at_once = msgspec.structs.replace(_PATIENCE, busy_s=0)
    while len(accepted) < len(specs):
        some = specs[len(accepted) : len(accepted) + size]
        patience = at_once if len(some) > 1 else None
        try:
            reply = await client.session.call(wire.Submit(0, some), wire.Submitted, patience)
        except ServerBusy as busy:
            size = (len(some) + 1) // 2
            await retry.pause(busy)
        else:
            accepted += reply.tasks
            size = min(2 * size, BATCH_TASKS_MAX)
    return accepted


def _batches(table: TableInput, ids: Ids) -> Iterator[list[tuple[int, TaskSpec | ErrorInfo]]]:
    batch: list[tuple[int, TaskSpec | ErrorInfo]] = []
    total = 0
    prefix = table.key
    for row in table.table.rows():
        made = table.task(row, f"{prefix}:{row.number}", ids)
        if isinstance(made, TaskSpec):
            total += size_bytes(made)
            if prefix is None:
                made = msgspec.structs.replace(made, key=_key(table, row.number, made))
        batch.append((row.number, made))
        if len(batch) == BATCH_TASKS_MAX or total > BATCH_BYTES_MAX:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def _key(table: TableInput, number: int, spec: TaskSpec) -> str:
    asked = msgspec.msgpack.encode((number, table.about, spec.messages))
    return f"row:{hashlib.sha256(asked).hexdigest()[:_KEY_CHARS]}"


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
