"""Editing tasks that wait, as a client says it.

An edit is all or nothing for the tasks it names, and safe to repeat: the same one again changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from autoglm import wire
from autoglm.ids import Ids
from autoglm.session import Session
from autoglm.spec import NO_DEADLINE, moment_ms
from autoglm.types import Task


class EditCalls:
    """A part of `Client`."""

    _session: Session
    _ids: Ids

    async def edit(
        self,
        id: str,
        *,
        priority: int | None = None,
        deadline: float | str | None = None,
        if_version: int | None = None,
    ) -> Task:
        """Change a task that waits; the task as it now stands. What is None stays as it is.

        `deadline` is from now, in seconds or words such as `"2h"`; `"none"` takes it away. With
        `if_version`, only if the task's `version` is still this. Raises NotFound, InvalidRequest,
        and Conflict if the task runs or has ended, or is at another version.
        """
        edited = await self.edit_many(
            [id], priority=priority, deadline=deadline, if_version=if_version
        )
        return edited[0]

    async def edit_many(
        self,
        ids: Iterable[str],
        *,
        priority: int | None = None,
        deadline: float | str | None = None,
        if_version: int | None = None,
    ) -> tuple[Task, ...]:
        """Like `edit`, for several in one transaction: all of them are changed, or none."""
        none = deadline == NO_DEADLINE
        at = None if none else moment_ms("deadline", deadline, self._ids.now_ms())
        message = wire.Edit(0, tuple(ids), priority, at, none, if_version)
        return (await self._session.call(message, wire.TaskPage)).tasks
