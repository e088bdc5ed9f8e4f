"""What a client can ask about queues, and set of them."""

from __future__ import annotations

from collections.abc import Sequence

from autoglm import wire
from autoglm.degrade import Degrade, QueueStatus
from autoglm.service import TenantStatus
from autoglm.session import Session


class QueueCalls:
    """A part of `Client`."""

    _session: Session

    async def queues(self) -> Sequence[QueueStatus]:
        """The queues there are, and how they are served.

            for queue in await client.queues():
                print(queue.name, queue.degrade, queue.paused)

        Sorted by name.
        """
        return (await self._session.call(wire.ListQueues(0), wire.QueuesReply)).queues

    async def tenants(self) -> Sequence[TenantStatus]:
        """The tenants of which something waits, runs or ran lately, and how they are served.

            for tenant in await client.tenants():
                print(tenant)

        A tenant's client sees its own alone.
        """
        return (await self._session.call(wire.ListTenants(0), wire.TenantsReply)).tenants

    async def set_queue(
        self,
        name: str,
        degrade: Degrade | None = None,
        default_text: str | None = None,
        *,
        reset: bool = False,
    ) -> QueueStatus:
        """Set what a queue does while no engine can serve, or, with `reset`, go back to the
        configuration; the queue as it now stands. For the operator. Raises InvalidRequest.

            async with Client(tenant=None) as operator:
                await operator.set_queue("background", "default", "No engine is up: ask again.")
                await operator.set_queue("background", reset=True)
        """
        message = wire.SetQueue(0, name, degrade, default_text, reset)
        reply = await self._session.call(message, wire.QueuesReply)
        return reply.queues[0]
