"""What the values of options may be: `type=` for argparse, whose complaint is ours."""

from __future__ import annotations

import argparse

from autoglm.errors import UsageError
from autoglm.spec import NO_DEADLINE, NUMBER_MAX
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


def number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= NUMBER_MAX:  # NaN is within nothing
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to {NUMBER_MAX}")
    return value


def factor(text: str) -> tuple[str, float]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=NUMBER, e.g. urgency_score=8")
    return name, number(value)


def deadline(text: str) -> float | str:
    return text if text == NO_DEADLINE else duration(text)


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
