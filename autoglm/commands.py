"""What the commands of the command line do: each one a function of its arguments.

Each returns an exit code and raises AutoGLMError for what ends it early. Answers are printed as
the model wrote them into a pipe, and made safe for a terminal.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from autoglm.client import Client
from autoglm.degrade import IN_WORDS
from autoglm.errors import InvalidRequest, NotFound, UsageError
from autoglm.ids import Ids
from autoglm.options import task_options
from autoglm.outcomes import result_of
from autoglm.paint import paint_for
from autoglm.paths import places
from autoglm.show import (
    all_states,
    describe,
    event_header,
    event_line,
    shown,
    task_header,
    task_line,
)
from autoglm.text import one_line, printable
from autoglm.types import Answer, Task, to_json


def client_of(arguments: argparse.Namespace) -> Client:
    """A client that speaks for the operator, to the server that the arguments mean."""
    return Client(places(arguments.socket, arguments.data_dir).socket, tenant=None)


async def submit(arguments: argparse.Namespace) -> int:
    if arguments.template is not None or arguments.table is not None:
        from autoglm import rows  # noqa: PLC0415 - of use to this alone, and has much to import

        return await rows.submit(arguments)
    text, options = _text_of(arguments), task_options(arguments)
    async with client_of(arguments) as client:
        task = await client.submit(text, **options)
        if arguments.wait or arguments.stream:
            _note(f"task {task.id}")
        if arguments.stream:
            return await _stream(client, task.id, as_json=arguments.json)
        if arguments.wait:
            return _finish(await client.answer(task.id, wait=True), as_json=arguments.json)
    _print_json(shown(task)) if arguments.json else _print(task.id)
    return 0


async def get(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        if arguments.wait:
            answer = await client.answer(arguments.id, wait=True)
            return _finish(answer, as_json=arguments.json)
        answer, eta = await client.look(arguments.id)
    if arguments.json:
        _print_json(shown(answer.task, answer.result, eta))
    else:
        _print(describe(answer, paint_for(sys.stdout), eta, _now_for_reader()))
    return 0


async def list_tasks(arguments: argparse.Namespace) -> int:
    paint = paint_for(sys.stdout)
    now_ms = _now_for_reader()
    async with client_of(arguments) as client:
        if now_ms is not None and not arguments.json:
            _print(task_header(paint, narrow=True))
        page = client.tasks(arguments.state, arguments.tenant, arguments.job, arguments.limit)
        async for task in page:
            _print_json(task) if arguments.json else _print(task_line(task, paint, now_ms))
    return 0


async def cancel(arguments: argparse.Namespace) -> int:
    if bool(arguments.ids) == bool(arguments.job):
        raise UsageError("cancel: give either ids or --job")
    async with client_of(arguments) as client:
        if arguments.job:
            count = await client.cancel_job(arguments.job)
            if arguments.json:
                _print_json({"job": arguments.job, "cancelled": count})
            else:
                _print(f"{count} cancelled")
            return 0
        reply = await client.cancel_many(arguments.ids)
    for task in reply.tasks:
        _print_json(task) if arguments.json else _print(f"{one_line(task.id)} {task.state.value}")
    if reply.unknown:
        raise NotFound(f"no task {', '.join(reply.unknown)}")
    return 0


async def status(arguments: argparse.Namespace) -> int:
    async with client_of(arguments) as client:
        now = all_states(await client.status())
    if arguments.json:
        _print_json(now)
        return 0
    from autoglm.live.top import print_status  # noqa: PLC0415  # rich is slow to import

    print_status(now, Ids().now_ms())
    return 0


async def events(arguments: argparse.Namespace) -> int:
    paint = paint_for(sys.stdout)
    async with client_of(arguments) as client:
        if sys.stdout.isatty() and not arguments.json:
            _print(event_header(paint))
        if arguments.task:
            await client.get(arguments.task)  # tells an unknown id from one without events
        async for event in client.events(arguments.task, follow=arguments.follow):
            _print_json(event) if arguments.json else _print(event_line(event, paint))
            if arguments.follow:
                sys.stdout.flush()
    return 0


async def _stream(client: Client, id: str, *, as_json: bool) -> int:
    """Print the answer as it comes. What a reset voids can't be taken back from a pipe: say so."""
    unattempted = False
    try:
        async for chunk in client.follow(id):
            unattempted = chunk.attempt == 0
            if as_json:
                place = {"attempt": chunk.attempt, "offset": chunk.offset, "reset": chunk.reset}
                _print_json({"text": chunk.text} | place)
            else:
                if chunk.reset:
                    print("\nautoglm: it starts over; what stands above is void", file=sys.stderr)
                sys.stdout.write(_for_reader(chunk.text))
            sys.stdout.flush()
    finally:
        if not as_json:
            _print("")
    if as_json or unattempted:
        answer = await client.answer(id)
        _say_degraded(answer.task)
        if as_json:
            _print_json(shown(answer.task, answer.result))
    return 0


def _finish(answer: Answer, *, as_json: bool) -> int:
    """Print an ended task. Raises TaskError when it has no answer."""
    if as_json:
        _print_json(shown(answer.task, answer.result))
    result = result_of(answer)
    _say_degraded(answer.task)
    if not as_json:
        _print(_for_reader(result.text))
    return 0


def _say_degraded(task: Task) -> None:
    """Whoever reads the text alone must know that no engine wrote it now."""
    if task.degraded:
        print(f"autoglm: {IN_WORDS[task.degraded]}", file=sys.stderr)


def _text_of(arguments: argparse.Namespace) -> str:
    """The prompt; from stdin without its last line feed, as a shell would hand it over."""
    if arguments.text is None:
        raise UsageError("submit: give a prompt, - for stdin, or --template and --from")
    if arguments.text != "-":
        return arguments.text
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"stdin is not UTF-8 at byte {error.start}") from None


def _for_reader(answer: str) -> str:
    return printable(answer) if sys.stdout.isatty() else answer


def _now_for_reader() -> int | None:
    """What a person at a terminal counts from; a program reads moments."""
    return Ids().now_ms() if sys.stdout.isatty() else None


def _note(message: str) -> None:
    """For a person who waits; nothing when nobody looks."""
    if sys.stderr.isatty():
        print(f"autoglm: {message}", file=sys.stderr)


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_json(value: Any) -> None:
    sys.stdout.write(to_json(value).decode() + "\n")
