"""What is read in bulk or found by a part of its name."""

from __future__ import annotations

from typing import Annotated

import msgspec

from autoglm.deadletter import Content
from autoglm.types import Output, Task, TaskState
from autoglm.wire.base import LIST_MAX, PAGE_MAX, Message


class ExportTasks(Message, frozen=True, tag="export"):
    """Tasks with what they ask and what was answered, oldest first, behind the cursor `after`.

    `since` (Unix ms): handed in then or later. Answered by `exported`; a page may be empty before
    the last one.
    """

    states: Annotated[tuple[TaskState, ...], msgspec.Meta(max_length=LIST_MAX)] = ()
    tenant: str | None = None
    queue: str | None = None
    job: str | None = None
    since: int | None = None
    after: int = 0
    limit: int = PAGE_MAX


class FindIds(Message, frozen=True, tag="find_ids"):
    """The ids of tasks and jobs that begin so, or end so and are new. Answered by `ids_are`."""

    part: str = ""


class Exported(msgspec.Struct, frozen=True):
    """A task in full. `content` is None when it is too big to come along."""

    task: Task
    content: Content | None = None
    result: Output | None = None


class ExportPage(Message, frozen=True, tag="exported"):
    """`next` is the cursor of the following page; None: this was the last."""

    tasks: tuple[Exported, ...] = ()
    next: int | None = None


class IdsReply(Message, frozen=True, tag="ids_are"):
    """A few of them, when they are many."""

    ids: tuple[str, ...] = ()
