"""What a client can do to take tasks out of the line and put them back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from autoglm import wire
from autoglm.degrade import QueueStatus
from autoglm.prompts import refuse_no_prompts
from autoglm.session import Session
from autoglm.spec import TaskRef, id_of
from autoglm.wire import TASKS_PER_SUBMIT_MAX, Deed, QueueDeed


async def in_parts(
    call: str,
    tasks: Iterable[TaskRef],
    send: Callable[[tuple[str, ...]], Awaitable[wire.Cancelled]],
) -> wire.Cancelled:
    """What came of sending the ids of `tasks`, as many at a time as one request takes."""
    refuse_no_prompts(call, tasks)
    ids = tuple(map(id_of, tasks))
    whole = wire.Cancelled(0)
    for start in range(0, max(len(ids), 1), TASKS_PER_SUBMIT_MAX):
        part = await send(ids[start : start + TASKS_PER_SUBMIT_MAX])
        whole = wire.Cancelled(
            *(0, whole.tasks + part.tasks, whole.unknown + part.unknown, whole.count + part.count)
        )
    return whole


class SteerCalls:
    """A part of `Client`. Ids that don't exist are in `unknown`, `count` is of what changed; what
    is in no state for it stays as it is, so every call may be repeated.
    """

    _session: Session

    async def pause(self, tasks: Iterable[TaskRef]) -> wire.Cancelled:
        """Tasks that wait stop waiting until they are resumed; what runs goes on.

            await client.pause(await client.list(state="pending"))

        Any number of them; they are changed 4,096 at a time.
        """
        return await self._steer("pause", tasks)

    async def resume(self, tasks: Iterable[TaskRef]) -> wire.Cancelled:
        """Paused tasks wait again, in their old places.

            await client.resume(await client.list(state="paused"))

        Any number of them.
        """
        return await self._steer("resume", tasks)

    async def requeue(self, tasks: Iterable[TaskRef]) -> wire.Cancelled:
        """Archived tasks wait again; the longest wait of their queue begins anew.

            await client.requeue(await client.list(state="archived", limit=100))

        Any number of them.
        """
        return await self._steer("requeue", tasks)

    async def pause_job(self, job: str) -> int:
        """Pause the tasks that a job has waiting; how many those were.

            async for task in client.tasks(state="pending"):
                if task.job:
                    await client.pause_job(task.job)

        Raises NotFound.
        """
        return await self._in_slices("pause", job=job)

    async def resume_job(self, job: str) -> int:
        """Resume the paused tasks of a job; how many those were.

            async for task in client.tasks(state="paused"):
                if task.job:
                    await client.resume_job(task.job)

        It takes lines again. Raises NotFound.
        """
        return await self._in_slices("resume", job=job)

    async def drain_job(self, job: str) -> int:
        """Take no more lines of a job until it is resumed, and finish those it has.

            async for task in client.tasks(state="pending"):
                if task.job:
                    await client.drain_job(task.job)

        Returns how many of them were paused and go on. Raises NotFound.
        """
        return await self._in_slices("drain", job=job)

    async def requeue_all(self) -> int:
        """Requeue every archived task within reach; how many those were.

            print(await client.requeue_all())

        Broken off, the same call goes on.
        """
        return await self._in_slices("requeue")

    async def pause_queue(self, name: str) -> QueueStatus:
        """Begin nothing more of a queue; what is handed in waits.

            async with Client(tenant=None) as operator:
                print((await operator.pause_queue("background")).paused)

        For the operator.
        """
        return await self.steer_queue(name, "pause")

    async def resume_queue(self, name: str) -> QueueStatus:
        """Go on with a queue.

            async with Client(tenant=None) as operator:
                print((await operator.resume_queue("background")).paused)

        For the operator.
        """
        return await self.steer_queue(name, "resume")

    async def drain_queue(self, name: str) -> QueueStatus:
        """Take nothing new into a queue until it is resumed, and finish what waits in it.

            async with Client(tenant=None) as operator:
                await operator.drain_queue("background")
                await operator.resume_queue("background")

        What is handed in is refused with ServerBusy. For the operator.
        """
        return await self.steer_queue(name, "drain")

    async def steer_queue(self, name: str, deed: QueueDeed) -> QueueStatus:
        """Pause, resume or drain a queue, by that word.

            async with Client(tenant=None) as operator:
                await operator.steer_queue("background", "resume")

        For the operator.
        """
        message = wire.SteerQueue(0, name, deed)
        return (await self._session.call(message, wire.QueuesReply)).queues[0]

    async def _steer(self, deed: Deed, tasks: Iterable[TaskRef]) -> wire.Cancelled:
        return await in_parts(
            deed,
            tasks,
            lambda ids: self._session.call(wire.Steer(0, deed, ids), wire.Cancelled),
        )

    async def _in_slices(self, deed: Deed, job: str | None = None) -> int:
        """The server changes a slice at a time. Broken off, the same call changes the rest."""
        count, after = 0, 0
        while True:
            message = wire.Steer(0, deed, job=job, every=job is None, after=after)
            done = await self._session.call(message, wire.Cancelled)
            count += done.count
            if done.next is None:
                return count
            after = done.next
