"""What may be said of tasks that are handed in: the options of `submit` and `run`."""

from __future__ import annotations

import argparse
from pathlib import Path

from autoglm import argtypes
from autoglm.spec import AFTER_FAILURES
from autoglm.types import (
    PRIORITY_DEFAULT,
    PRIORITY_LEAST_URGENT,
    PRIORITY_MOST_URGENT,
    QUEUE_DEFAULT,
)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of `run`, as `autoglm.job.options_of` reads them."""
    parser.add_argument("input", metavar="IN.jsonl", type=Path, help="one task a line")
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


def add_submit_options(parser: argparse.ArgumentParser) -> None:
    """The options of `submit`, as `autoglm.commands.submit` reads them."""
    parser.add_argument("text", metavar="TEXT|-", help="the prompt; - reads it from stdin")
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--wait", action="store_true", help="print the answer when it is there")
    answer.add_argument("--stream", action="store_true", help="print the answer as it is written")
    parser.add_argument(
        "--priority",
        type=argtypes.priority,
        metavar=f"{PRIORITY_MOST_URGENT}-{PRIORITY_LEAST_URGENT}",
        help=f"smaller is more urgent (default: by the server's rules, or {PRIORITY_DEFAULT})",
    )
    parser.add_argument("--tenant", default="default", help="on whose behalf")
    parser.add_argument("--key", help="the same key with the same content is the same task")
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
