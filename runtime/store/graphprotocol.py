"""Tasks that are stored together or not at all. Part of `runtime.store.protocol`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from autoglm.graph import NOT_STORED
from autoglm.types import ErrorInfo
from autoglm.wire import Accepted
from runtime.store.protocol import InsertTasks


class InsertGraph(InsertTasks, frozen=True):
    """All of them or none. Each stands behind those of them that it comes after.

    Result: `tuple[Accepted, ...]`, one a task: all have a task, or all an error.
    """


def none_of(accepted: Sequence[Accepted]) -> tuple[Accepted, ...]:
    """What is said of tasks of which one at least was refused."""
    first = next(each for each in accepted if each.error is not None)
    error = ErrorInfo(NOT_STORED, "another task of the same submit was refused")
    other = Accepted(error=error, retry_after=first.retry_after)
    return tuple(
        each if each.error is not None else msgspec.structs.replace(other) for each in accepted
    )
