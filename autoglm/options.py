"""What may be said of tasks that are handed in: the options of `submit` and `run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoglm import argtypes
from autoglm.spec import AFTER_FAILURES, TaskOptions
from autoglm.types import (
    PRIORITY_DEFAULT,
    PRIORITY_LEAST_URGENT,
    PRIORITY_MOST_URGENT,
    QUEUE_DEFAULT,
)

Options = argparse.ArgumentParser | argparse._ArgumentGroup  # pyright: ignore[reportPrivateUsage]
ANSWER_COLUMN = "answer"


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of `run`, as `autoglm.job.options_of` reads them."""
    parser.add_argument(
        "input", metavar="IN.jsonl", type=Path, nargs="?", help="one task a line, or see --template"
    )
    parser.add_argument(
        *("-o", "--output"),
        metavar="OUT.jsonl",
        type=Path,
        required=True,
        help="where the answers go; what fails goes to OUT.errors.jsonl",
    )
    parser.add_argument("--fresh", action="store_true", help="start over, whatever OUT.jsonl holds")
    order = parser.add_mutually_exclusive_group()
    order.add_argument(
        "--ordered",
        action="store_true",
        default=True,
        help="write answers in the order of the input (this is the default)",
    )
    order.add_argument(
        "--as-completed", dest="ordered", action="store_false", help="write answers as they come"
    )
    rows = parser.add_argument_group(
        "one task a row", "OUT.csv or OUT.jsonl has the rows of TABLE with the answer beside them"
    )
    add_table_options(rows)
    rows.add_argument("--answer-column", metavar="NAME", help=f"in OUT (default: {ANSWER_COLUMN})")
    add_task_options(rows)


def add_table_options(parser: Options) -> None:
    """One task a row."""
    parser.add_argument(
        "--template",
        metavar="TEXT",
        help="make a task of each row of --from: 'Summarise: {text}', where text is a column",
    )
    parser.add_argument(
        "--from",
        dest="table",
        type=Path,
        metavar="TABLE",
        help="a CSV with a header, or objects in JSONL",
    )


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """The options of `submit`, as `autoglm.commands.submit` reads them."""
    parser.add_argument(
        "text", metavar="TEXT|-", nargs="?", help="the prompt; - reads it from stdin"
    )
    add_table_options(parser)
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--wait", action="store_true", help="print the answer when it is there")
    answer.add_argument("--stream", action="store_true", help="print the answer as it is written")
    add_task_options(parser)
    parser.add_argument(
        "--after",
        nargs="+",
        action="extend",
        default=[],
        metavar="ID",
        help="tasks that must succeed first",
    )
    parser.add_argument(
        "--after-failure",
        choices=AFTER_FAILURES,
        default="cancel",
        help="when one of those does not succeed: end as cancelled (this is the default), or run"
        " once all of them have ended",
    )


def add_task_options(parser: Options) -> None:
    """What may be said of any task, named as in `autoglm.spec.TaskOptions`."""
    parser.add_argument(
        "--priority",
        type=argtypes.priority,
        metavar=f"{PRIORITY_MOST_URGENT}-{PRIORITY_LEAST_URGENT}",
        help=f"smaller is more urgent (default: by the server's rules, or {PRIORITY_DEFAULT})",
    )
    parser.add_argument("--tenant", default="default", help="on whose behalf")
    parser.add_argument(
        "--key", help="the same key with the same content is the same task; of rows, KEY:ROW each"
    )
    parser.add_argument("--queue", help=f"default: by the kind, or {QUEUE_DEFAULT}")
    parser.add_argument("--kind", help="what sort of work it is, for the server's rules")
    parser.add_argument(
        "--weight", type=argtypes.number, metavar="0-10", help="what it is worth, for the rules"
    )
    parser.add_argument(
        "--factor",
        dest="factors",
        type=argtypes.factor,
        action="append",
        default=[],
        metavar="NAME=0-10",
        help="a number that the server's rules know; may be repeated",
    )
    parser.add_argument("--system", metavar="TEXT", help="the system message")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="end the answer there")
    parser.add_argument("--temperature", type=float, metavar="X")
    parser.add_argument("--top-p", type=float, metavar="X")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="may be repeated"
    )
    parser.add_argument(
        "--deadline", type=argtypes.duration, metavar="2h", help="hurry as this draws near"
    )
    parser.add_argument(
        "--expires", type=argtypes.duration, metavar="1d", help="give up after this"
    )
    parser.add_argument(
        "--max-attempts", type=int, metavar="N", help="failures that end it for good"
    )
    parser.add_argument(
        "--timeout",
        type=argtypes.duration,
        metavar="30s",
        dest="attempt_timeout",
        help="what one attempt may take",
    )


def task_options(arguments: argparse.Namespace) -> TaskOptions:
    """What a command line says of its tasks."""
    return {
        name: getattr(arguments, name)
        for name in TaskOptions.__annotations__
        if hasattr(arguments, name)
    }  # pyright: ignore[reportReturnType]  # the options are named as the arguments are
