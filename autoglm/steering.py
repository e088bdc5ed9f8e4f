"""What a client can do to take tasks out of the line and put them back."""

from __future__ import annotations

from collections.abc import Iterable

from autoglm import wire
from autoglm.degrade import QueueStatus
from autoglm.session import Session
from autoglm.wire import Deed, QueueDeed


class SteerCalls:
    """A part of `Client`. Ids that don't exist are in `unknown`, `count` is of what changed; what
    is in no state for it stays as it is, so every call may be repeated.
    """

    _session: Session

    async def pause(self, ids: Iterable[str]) -> wire.Cancelled:
        """Tasks that wait stop waiting until they are resumed; what runs goes on."""
        return await self._session.call(wire.Steer(0, "pause", tuple(ids)), wire.Cancelled)

    async def resume(self, ids: Iterable[str]) -> wire.Cancelled:
        """Paused tasks wait again, in their old places."""
        return await self._session.call(wire.Steer(0, "resume", tuple(ids)), wire.Cancelled)

    async def requeue(self, ids: Iterable[str]) -> wire.Cancelled:
        """Archived tasks wait again; the longest wait of their queue begins anew."""
        return await self._session.call(wire.Steer(0, "requeue", tuple(ids)), wire.Cancelled)

    async def pause_job(self, job: str) -> int:
        """Pause the tasks that a job has waiting; how many those were. Raises NotFound."""
        return await self._in_slices("pause", job=job)

    async def resume_job(self, job: str) -> int:
        """Resume the paused tasks of a job; how many those were. It takes lines again. Raises
        NotFound.
        """
        return await self._in_slices("resume", job=job)

    async def drain_job(self, job: str) -> int:
        """Take no more lines of a job until it is resumed, and finish those it has; how many of
        them were paused and go on. Raises NotFound.
        """
        return await self._in_slices("drain", job=job)

    async def requeue_all(self) -> int:
        """Requeue every archived task within reach; how many those were."""
        return await self._in_slices("requeue")

    async def pause_queue(self, name: str) -> QueueStatus:
        """Begin nothing more of a queue; what is handed in waits. For the operator."""
        return await self.steer_queue(name, "pause")

    async def resume_queue(self, name: str) -> QueueStatus:
        """Go on with a queue. For the operator."""
        return await self.steer_queue(name, "resume")

    async def drain_queue(self, name: str) -> QueueStatus:
        """Take nothing new into a queue until it is resumed, and finish what waits in it: what is
        handed in is refused with ServerBusy. For the operator.
        """
        return await self.steer_queue(name, "drain")

    async def steer_queue(self, name: str, deed: QueueDeed) -> QueueStatus:
        """Pause, resume or drain a queue, by that word."""
        message = wire.SteerQueue(0, name, deed)
        return (await self._session.call(message, wire.QueuesReply)).queues[0]

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
