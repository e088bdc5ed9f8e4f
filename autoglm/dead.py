"""`autoglm dead`: look into dead letters, retry them, edit them, give them up."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio.to_thread
import msgspec

from autoglm import wire
from autoglm.client import Client
from autoglm.deadletter import Content, DeadLetter, DeadLetterInFull
from autoglm.deadletters import DeadLetters, as_asked, edited
from autoglm.errors import AutoGLMError, Conflict, InvalidRequest, NotFound, UsageError
from autoglm.paint import Paint, paint_for
from autoglm.paths import places
from autoglm.text import clock_time, one_line, printable
from autoglm.types import Message, Sampling, Task, to_json

_COLUMNS = "{:26}  {:19}  {:12}  {:16}  {:>5}  {:40}  {}"


class Action(NamedTuple):
    """`autoglm dead NAME`."""

    name: str
    summary: str
    run: Callable[[argparse.Namespace], Awaitable[int]]
    options: Callable[[argparse.ArgumentParser], None]


class _Draft(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What a person edits: as `Content`, and nothing else is taken."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: dict[str, Any] = {}


async def list_letters(arguments: argparse.Namespace) -> int:
    paint = paint_for(sys.stdout)
    async with _client(arguments) as client:
        if sys.stdout.isatty() and not arguments.json:
            names = ("ID", "DIED", "TENANT", "REASON", "FAILS", "PROMPT", "ERROR")
            _print(paint(_COLUMNS.format(*names), "bold"))
        async for letter in client.dead.letters(arguments.tenant, arguments.reason):
            _print_json(letter) if arguments.json else _print(letter_line(letter))
    return 0


async def show(arguments: argparse.Namespace) -> int:
    async with _client(arguments) as client:
        letter = await client.dead.show(arguments.id)
    if arguments.json:
        _print_json(letter)
    else:
        _print(describe(letter, paint_for(sys.stdout)))
    return 0


async def retry(arguments: argparse.Namespace) -> int:
    return await _settle(arguments, discard=False)


async def discard(arguments: argparse.Namespace) -> int:
    return await _settle(arguments, discard=True)


async def edit(arguments: argparse.Namespace) -> int:
    settings = dict(map(_setting, arguments.settings))
    async with _client(arguments) as client:
        letter = await client.dead.show(arguments.id)
        if settings or arguments.prompt is not None:
            content = edited(letter.content, arguments.prompt, settings)
            task = await client.dead.replace(letter, content)
        else:
            task = await _edit_by_hand(client.dead, letter)
    _tell(task, as_json=arguments.json)
    return 0


def letter_line(letter: DeadLetter) -> str:
    return _COLUMNS.format(
        one_line(letter.message_id, 26),
        clock_time(letter.died_at),
        one_line(letter.tenant, 12),
        one_line(letter.reason, 16),
        letter.failures,
        one_line(letter.text, 40),
        one_line(letter.error, 60),
    ).rstrip()


def describe(letter: DeadLetterInFull, paint: Paint) -> str:
    """A letter in full: facts, what went wrong and when, settings, and the prompt at the end."""
    facts = {
        "id": letter.message_id,
        "died": clock_time(letter.died_at),
        "reason": letter.reason,
        "tenant": letter.tenant,
        "queue": letter.queue,
        "kind": letter.kind,
        "key": letter.key,
        "job": letter.job,
        "created": clock_time(letter.created_at),
        "attempt": str(letter.attempt),
        "failures": str(letter.failures),
        "edited": "yes: --json shows what was handed in" if letter.original else None,
        "sampling": msgspec.json.encode(letter.content.sampling).decode(),
    }
    lines = [
        f"{paint(f'{name:10}', 'bold')}{one_line(value)}" for name, value in facts.items() if value
    ]
    lines += ["", paint("errors", "bold")]
    for each in letter.errors:
        head = f"  attempt {each.attempt}, {clock_time(each.at)}: {one_line(each.code)}"
        lines += [head, *(f"    {line}" for line in printable(each.message).splitlines())]
    if not letter.errors:
        lines.append(f"  {one_line(letter.error)} ({one_line(letter.reason)})")
    for turn in letter.content.messages:
        lines += ["", paint(one_line(turn.role), "bold"), printable(turn.content)]
    if letter.content.prompt is not None:
        lines += ["", paint("prompt", "bold"), printable(letter.content.prompt)]
    return "\n".join(lines)


async def _settle(arguments: argparse.Namespace, *, discard: bool) -> int:
    what = "discard" if discard else "retry"
    if bool(arguments.ids) == arguments.all:
        raise UsageError(f"dead {what}: give either ids or --all")
    if arguments.ids and (arguments.tenant or arguments.reason):
        raise UsageError(f"dead {what}: --tenant and --reason go with --all")
    async with _client(arguments) as client:
        if arguments.ids:
            return await _settle_named(client.dead, arguments, discard=discard)
        if not arguments.yes and not await _sure(what, arguments):
            print("autoglm: nothing was changed", file=sys.stderr)
            return 1
        settle_all = client.dead.discard_all if discard else client.dead.retry_all
        count = await settle_all(arguments.tenant, arguments.reason)
    done = "discarded" if discard else "retried"
    _print_json({done: count}) if arguments.json else _print(f"{count} {done}")
    return 0


async def _settle_named(dead: DeadLetters, arguments: argparse.Namespace, *, discard: bool) -> int:
    ids, size = tuple(dict.fromkeys(arguments.ids)), wire.TASKS_PER_SUBMIT_MAX
    unknown: list[str] = []
    other: list[str] = []
    for start in range(0, len(ids), size):
        reply = await dead.settle(ids[start : start + size], discard=discard)
        unknown += reply.unknown
        for task in reply.tasks:
            if as_asked(task, discard=discard):
                _tell(task, as_json=arguments.json)
            else:
                other.append(f"{task.id} is {task.state.value}")
    if unknown:
        raise NotFound(f"no task {', '.join(unknown)}")
    if other:
        raise Conflict(f"no dead letter: {', '.join(other)}")
    return 0


async def _sure(what: str, arguments: argparse.Namespace) -> bool:
    """Ask whoever sits at a terminal; nobody there has said yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    reason = f" of reason {one_line(arguments.reason)}" if arguments.reason else ""
    tenant = f" of tenant {one_line(arguments.tenant)}" if arguments.tenant else ""
    print(f"{what} all dead letters{reason}{tenant}? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    return answer.strip().lower() in ("y", "yes")


async def _edit_by_hand(dead: DeadLetters, letter: DeadLetterInFull) -> Task:
    """Let a person edit it and hand it in. What was written is lost to no error."""
    if not sys.stdin.isatty():
        raise UsageError(
            "dead edit: no terminal to edit on; give --prompt TEXT or --set NAME=VALUE"
        )
    import tempfile  # noqa: PLC0415  # takes a while, and every command imports this file

    descriptor, name = tempfile.mkstemp(prefix="autoglm-", suffix=".json")
    os.close(descriptor)
    path = Path(name)
    before = draft_of(letter.content)
    path.write_bytes(before)
    command = [*shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"), name]
    try:
        ended = await anyio.to_thread.run_sync(lambda: subprocess.run(command, check=False))
        after = path.read_bytes()
        if ended.returncode or after == before:
            path.unlink()
            raise UsageError(
                f"nothing was changed; to run it as it is: autoglm dead retry {letter.message_id}"
            )
        task = await dead.replace(letter, content_of(after))
    except AutoGLMError as error:
        if path.exists():
            raise type(error)(f"{error}; what you wrote is in {name}") from None
        raise
    path.unlink()
    return task


def draft_of(content: Content) -> bytes:
    """JSON for a person to edit, with every setting there is; null is the model's own."""
    settings = {name: getattr(content.sampling, name) for name in Sampling.__struct_fields__}
    draft = _Draft(content.messages, content.prompt, settings)
    return msgspec.json.format(msgspec.json.encode(draft), indent=2) + b"\n"


def content_of(draft: bytes) -> Content:
    """What a person made of a draft. Raises InvalidRequest."""
    try:
        read = msgspec.json.decode(draft, type=_Draft)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"not what a task is: {error}") from None
    return edited(Content(read.messages, read.prompt), sampling=read.sampling)


def _setting(text: str) -> tuple[str, Any]:
    """`max_tokens=64`; a value is JSON, and what is none is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--set {one_line(text, 40)}: write NAME=VALUE")
    try:
        read = msgspec.json.decode(value)
    except msgspec.DecodeError:
        read = value
    return name.strip(), [read] if name == "stop" and isinstance(read, str) else read


def _client(arguments: argparse.Namespace) -> Client:
    return Client(places(arguments.socket, arguments.data_dir).socket, tenant=None)


def _tell(task: Task, *, as_json: bool) -> None:
    _print_json(task) if as_json else _print(f"{one_line(task.id)} {task.state.value}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_json(value: Any) -> None:
    sys.stdout.write(to_json(value).decode() + "\n")


# ── what may be typed ────────────────────────────────────────────────────────────────────────────


def _filter_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tenant", metavar="T", help="of this tenant alone")
    parser.add_argument("--reason", metavar="CODE", help="with this error code alone")


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID")


def _settle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--all", action="store_true", help="all that --tenant and --reason fit")
    parser.add_argument("--yes", action="store_true", help="don't ask whether I am sure")
    _filter_options(parser)


def _edit_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--prompt", metavar="TEXT", help="takes the place of the last user message")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """\
Here --set changes a setting of the task; null is the model's own. Without --prompt and --set,
$EDITOR opens on the task as JSON.

examples:
  autoglm dead edit ny3b9c2k --set max_tokens=64
  autoglm dead edit ny3b9c2k --prompt 'Shorter, please.'
"""


ACTIONS = (
    Action("list", "list dead letters, newest first", list_letters, _filter_options),
    Action("show", "show a dead letter and the errors of every attempt", show, _show_options),
    Action("retry", "put dead letters back into the queue", retry, _settle_options),
    Action("edit", "change what a dead letter asks for, and retry it", edit, _edit_options),
    Action("discard", "give dead letters up: they end as cancelled", discard, _settle_options),
)
