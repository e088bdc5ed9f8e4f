"""What the values of options may be: `type=` for argparse, whose complaint is ours."""

from __future__ import annotations

import argparse

from autoglm.errors import UsageError
from autoglm.text import duration_s
from autoglm.types import PRIORITY_LEAST_URGENT, PRIORITY_MOST_URGENT, TaskState


def priority(text: str) -> int:
    value = int(text) if text.isascii() and text.isdecimal() else -1
    if not PRIORITY_MOST_URGENT <= value <= PRIORITY_LEAST_URGENT:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a priority: {PRIORITY_MOST_URGENT} (most urgent)"
            f" to {PRIORITY_LEAST_URGENT} (least)",
        )
    return value


def count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def duration(text: str) -> float:
    try:
        return duration_s(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def state(text: str) -> TaskState:
    try:
        return TaskState.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
