"""A session with a server: the connection of the moment, and a new one when it is lost.

Every request of this protocol is safe to repeat, so `call` repeats it while the server is away.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.abc

from autoglm import wire
from autoglm.connection import Channel, Connection, connect
from autoglm.errors import (
    ProtocolError,
    ServerBusy,
    ServerNotRunning,
    ServerUnavailable,
    UsageError,
)
from autoglm.retry import PATIENCE, Patience, Retry

R = TypeVar("R", bound=wire.Reply)

AWAY = (ServerNotRunning, ServerUnavailable, ServerBusy)
"""Errors that repeating the same request may mend."""


class Session:
    """Entering connects, and raises ServerNotRunning at once when nobody listens.

    Later, a request that finds the server away is repeated for as long as `patience` says.
    """

    def __init__(
        self,
        socket: Path,
        tenant: str | None,
        patience: Patience = PATIENCE,
        retry: Callable[[Patience], Retry] = Retry,
    ) -> None:
        self.socket = socket
        self.tenant = tenant
        self.patience = patience
        self._retry = retry
        self._connection: Connection | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Session at {self.socket}, tenant {self.tenant}, {self._connection}>"

    async def __aenter__(self) -> Self:
        self._tasks = anyio.create_task_group()
        self._connecting = anyio.Lock()
        await self._tasks.__aenter__()
        try:
            await self._connected()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tasks, self._tasks, self._closed = self.tasks, None, True
        tasks.cancel_scope.cancel()
        # Not told of the caller's error, which would come out wrapped in a group.
        await tasks.__aexit__(None, None, None)

    @property
    def tasks(self) -> anyio.abc.TaskGroup:
        """For what runs as long as the session does. Raises UsageError outside of that."""
        if self._tasks is None and self._closed:
            raise UsageError("the client was closed: its calls belong inside its `with`")
        if self._tasks is None:
            raise UsageError("the client is not open: use it in `async with Client() as client:`")
        return self._tasks

    @property
    def server(self) -> wire.Welcome:
        """How the server introduced itself when last connected: version, engine, model."""
        assert self._connection, "the session has not been entered"
        return self._connection.welcome

    async def call(
        self,
        message: wire.Request,
        kind: type[R],
        patience: Patience | None = None,
    ) -> R:
        """Send a request and return its one reply.

        Raises what the server refuses it with, and what keeps the server away for too long.
        """
        retry = self.retry(patience)
        while True:
            try:
                reply = await (await self._connected()).request(message)
            except AWAY as error:
                await retry.pause(error)
                continue
            if not isinstance(reply, kind):
                raise unexpected(reply)
            return reply

    async def open(self, message: wire.Request) -> Channel:
        """A channel for the many replies to a request; it does not outlive the connection."""
        return await (await self._connected()).open(message)

    def retry(self, patience: Patience | None = None) -> Retry:
        """The patience of a call that repeats by itself."""
        return self._retry(patience or self.patience)

    async def _connected(self) -> Connection:
        tasks = self.tasks
        async with self._connecting:
            if self._connection is None or self._connection.lost:
                self._connection = await connect(self.socket, self.tenant, tasks)
            return self._connection


def unexpected(reply: wire.Reply) -> ProtocolError:
    """The error for a reply that does not belong to its request."""
    return ProtocolError(f"the server sent {type(reply).__name__}, which was not asked for")
