"""The command line: what may be typed, and how a command ends.

Data goes to stdout, everything else to stderr. Exit codes: 0 done, 1 some work failed, 2 wrong
usage or configuration, 3 no server or it refused, 130 interrupted. An error is one line. The
commands here need no more than a running server; `actors.main` adds those that start one, through
`Extra`.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn, cast

import anyio

from autoglm import (
    __version__,
    argtypes,
    commands,
    dead,
    drilling,
    editing,
    exporting,
    pruning,
    queues,
    shortids,
    steer,
)
from autoglm.errors import AutoGLMError
from autoglm.examples import add_examples
from autoglm.options import add_submit_options
from autoglm.text import one_line
from autoglm.types import TaskState

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

Subparsers = argparse._SubParsersAction  # pyright: ignore[reportPrivateUsage]
Run = Callable[[argparse.Namespace], int]
Extra = Callable[["Subparsers[Parser]"], None]
"""Adds commands of its own with `add_command`."""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"autoglm: {one_line(message)}; see: {self.prog} --help\n")


def main(argv: Sequence[str] | None = None, extra: Iterable[Extra] = ()) -> int:
    """Run one command and return its exit code."""
    _stand_in_for_closed_streams()
    try:
        arguments = build_parser(extra).parse_args(argv)
        code = cast("Run", arguments.run)(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has enough. Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("AUTOGLM_TRACEBACK"):
            raise
        complain(_in_one_line(error))
        return error.exit_code if isinstance(error, AutoGLMError) else EXIT_FAILED
    return code


def _stand_in_for_closed_streams() -> None:
    """Whoever started us may have closed our output. A socket must not get its number."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, os.fdopen(number, "w"))


def complain(message: str) -> None:
    """One line for the person, on stderr."""
    print(f"autoglm: {one_line(message)}", file=sys.stderr)


def build_parser(extra: Iterable[Extra] = ()) -> Parser:
    """The parser of all commands; `arguments.run(arguments)` carries out the one that was given."""
    parser = Parser(
        prog="autoglm",
        description="A durable offline inference queue: hand in prompts, get every answer once.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"autoglm {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for add in extra:
        add(subparsers)
    summary = "hand in a prompt and print its task's id"
    add_submit_options(add_command(subparsers, "submit", summary, _async(commands.submit)))
    _add_get(subparsers)
    _add_list(subparsers)
    _add_cancel(subparsers)
    edit = add_command(subparsers, "edit", editing.SUMMARY, _async(editing.edit))
    editing.add_edit_options(edit)
    _add_steering(subparsers)
    add_command(subparsers, "status", "show what the server is doing", _async(commands.status))
    watch = add_command(subparsers, "top", "watch the server at work", _top)
    watch.add_argument("--once", action="store_true", help="print one picture, as into a pipe")
    _add_events(subparsers)
    export = add_command(subparsers, "export", exporting.SUMMARY, _async(exporting.export))
    exporting.add_options(export)
    _add_prune(subparsers)
    look = "look into tasks that failed for good, mend and retry them"
    _add_actions(subparsers, "dead", look, dead.ACTIONS)
    _add_actions(subparsers, "queue", "look at the queues and steer them", queues.ACTIONS)
    summary = "show what each {} gets, what is due to it and what holds it"
    add_command(subparsers, "queues", summary.format("queue"), _async(queues.list_all))
    add_command(subparsers, "tenants", summary.format("tenant"), _async(queues.list_tenants))
    _add_drill(subparsers)
    add_examples(parser)
    return parser


def add_command(
    subparsers: Subparsers[Parser],
    name: str,
    summary: str,
    run: Run,
) -> Parser:
    """A command with the options that all commands have."""
    parser = subparsers.add_parser(
        name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    parser.add_argument("--socket", metavar="PATH", help="where the server listens")
    parser.add_argument("--data-dir", metavar="DIR", help="where the server keeps its data")
    parser.add_argument("--json", action="store_true", help="print JSON, one value a line")
    server = parser.add_argument_group(
        "the server", "accepted by every command, of use to those that start a server"
    )
    server.add_argument("--config", metavar="FILE.yaml", type=Path, help="the configuration")
    server.add_argument(
        "--set",
        metavar="KEY.PATH=VALUE",
        dest="settings",
        action="append",
        default=[],
        help="one setting; may be repeated, the last wins",
    )
    server.add_argument("--engine", choices=("vllm", "simulated"), help="what runs the model")
    server.add_argument("--model", metavar="NAME|PATH", help="smollm2, tiny or a model folder")
    return parser


def _add_get(subparsers: Subparsers[Parser]) -> None:
    parser = add_command(subparsers, "get", "show a task and its answer", _async(commands.get))
    parser.add_argument("id", metavar="ID")
    parser.add_argument(
        "--wait", action="store_true", help="wait for the answer and print its text alone"
    )


def _add_list(subparsers: Subparsers[Parser]) -> None:
    parser = add_command(
        subparsers, "list", "list tasks, newest first", _async(commands.list_tasks)
    )
    parser.add_argument("--state", type=argtypes.state, help=", ".join(TaskState))
    parser.add_argument("--tenant")
    parser.add_argument("--job")
    parser.add_argument("--limit", type=argtypes.count, metavar="N", help="no more than this")


def _add_cancel(subparsers: Subparsers[Parser]) -> None:
    parser = add_command(
        subparsers, "cancel", "end tasks that have not ended", _async(commands.cancel)
    )
    parser.add_argument("ids", metavar="ID", nargs="*")
    parser.add_argument("--job", help="all tasks of this job")


def _add_steering(subparsers: Subparsers[Parser]) -> None:
    summary = "stop tasks, a job or a queue from being begun"
    pause = add_command(subparsers, "pause", summary, _async(steer.pause))
    steer.add_options(pause, steer.PAUSE_EXAMPLES)
    summary = "go on with what was paused"
    resume = add_command(subparsers, "resume", summary, _async(steer.resume))
    steer.add_options(resume, steer.RESUME_EXAMPLES)
    summary = "take nothing new into a queue or a job, and finish what waits"
    drain = add_command(subparsers, "drain", summary, _async(steer.drain))
    steer.add_options(drain, steer.DRAIN_EXAMPLES)
    look = "look at what waited too long and was put aside, and requeue it"
    _add_actions(subparsers, "archive", look, steer.ACTIONS)


def _add_events(subparsers: Subparsers[Parser]) -> None:
    parser = add_command(
        subparsers, "events", "print every change of every task", _async(commands.events)
    )
    parser.add_argument("--task", metavar="ID", help="of this task alone")
    parser.add_argument("--follow", action="store_true", help="go on as more happens")


def _add_prune(subparsers: Subparsers[Parser]) -> None:
    parser = add_command(
        subparsers, "prune", "remove what ended long ago, answers included", _async(pruning.prune)
    )
    parser.add_argument(
        "--older-than",
        type=argtypes.duration,
        required=True,
        metavar="30d",
        help="tasks and whole jobs that ended longer ago than this",
    )


def _add_actions(
    subparsers: Subparsers[Parser],
    name: str,
    summary: str,
    all_actions: Iterable[dead.Action | queues.Action | steer.Action],
) -> None:
    """`autoglm NAME ACTION`."""
    parser = subparsers.add_parser(
        name, help=summary, description=f"{summary.capitalize()}.", allow_abbrev=False
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=Parser)
    for action in all_actions:
        action.options(add_command(actions, action.name, action.summary, _async(action.run)))


def _add_drill(subparsers: Subparsers[Parser]) -> None:
    parser = subparsers.add_parser(
        "drill",
        help=drilling.SUMMARY,
        description=f"{drilling.SUMMARY.capitalize()}.",
        epilog=drilling.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(metavar="FAILURE", required=True, parser_class=Parser)
    for action in drilling.ACTIONS:
        action.options(add_command(actions, action.name, action.summary, _async(action.run)))


def _async(command: Callable[[argparse.Namespace], Awaitable[int]]) -> Run:
    return functools.partial(anyio.run, shortids.expanding(command))


def _top(arguments: argparse.Namespace) -> int:
    from autoglm.live import top  # noqa: PLC0415  # rich is slow to import

    return anyio.run(top.top, arguments)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, AutoGLMError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return (
        f"internal error: {type(error).__name__}: {error}"
        " (set AUTOGLM_TRACEBACK=1 to see where it comes from)"
    )
