"""Editing tasks that wait, as a client says it.

An edit is all or nothing for the tasks it names, and safe to repeat: the same one again changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from autoglm import wire
from autoglm.ids import Ids
from autoglm.prompts import refuse_no_prompts
from autoglm.session import Session
from autoglm.spec import NO_DEADLINE, TaskRef, id_of, moment_ms
from autoglm.types import Task


class EditCalls:
    """A part of `Client`."""

    _session: Session
    _ids: Ids

    async def edit(
        self,
        task: TaskRef,
        *,
        priority: int | None = None,
        deadline: float | str | None = None,
        if_version: int | None = None,
    ) -> Task:
        """Change a task that waits; the task as it now stands. What is None stays as it is.

            for task in await client.list(state="pending", limit=10):
                with contextlib.suppress(Conflict):  # it runs by now
                    await client.edit(task, priority=1, if_version=task.version)

        `deadline` is from now, in seconds or words such as `"2h"`; `"none"` takes it away. With
        `if_version`, only if the task's `version` is still this. Raises NotFound, InvalidRequest,
        and Conflict if the task runs or has ended, or is at another version.
        """
        edited = await self.edit_many(
            [task], priority=priority, deadline=deadline, if_version=if_version
        )
        return edited[0]

    async def edit_many(
        self,
        tasks: Iterable[TaskRef],
        *,
        priority: int | None = None,
        deadline: float | str | None = None,
        if_version: int | None = None,
    ) -> tuple[Task, ...]:
        """Like `edit`, for several in one transaction: all of them are changed, or none.

            if waiting := await client.list(state="pending", limit=100):
                with contextlib.suppress(Conflict):  # one of them runs by now
                    await client.edit_many(waiting, deadline="2h")

        Raises what `edit` raises; nothing is changed then.
        """
        refuse_no_prompts("edit_many", tasks)
        none = deadline == NO_DEADLINE
        at = None if none else moment_ms("deadline", deadline, self._ids.now_ms())
        message = wire.Edit(0, tuple(map(id_of, tasks)), priority, at, none, if_version)
        return (await self._session.call(message, wire.TaskPage)).tasks
