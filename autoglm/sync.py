"""The client for scripts and notebooks: the same calls, and each returns when it is done.

    from autoglm.sync import Client

    with Client() as client:
        print(client.generate("Why is the sky blue?").text)

An event loop in a thread of its own does the work, so it runs wherever a thread may wait, inside a
running loop (Jupyter) too. Ctrl-C ends what is waited for, and `generate` then cancels its task.
"""

from __future__ import annotations

import functools
import os
import threading
from types import TracebackType
from typing import Any, Self

from autoglm.blocking import Loop, blocking, iterating
from autoglm.client import Client as Awaiting
from autoglm.drill import DrillReport
from autoglm.retry import PATIENCE, Patience
from autoglm.syncask import AskCalls
from autoglm.syncdead import DeadLetters
from autoglm.wire import Welcome

__all__ = ["Client", "DeadLetters"]


class Client(AskCalls):
    """`autoglm.Client` for callers that block; the same calls, with the same errors.

        client = Client()
        task = client.submit("Why is the sky blue?")
        print(client.result(task).text)
        client.close()

    It connects when it is first used, or as a context manager on entering; both raise
    ServerNotRunning when nobody listens. Any number of threads may share one. One that is not
    closed ends with the process, and one that was closed connects anew when it is used.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        tenant: str | None = "default",
        *,
        patience: Patience = PATIENCE,
    ) -> None:
        self.awaited: Awaiting = Awaiting(socket, tenant, patience=patience)
        self._opening = threading.Lock()
        self._opened: Loop | None = None
        self.loop = self._open

    def __repr__(self) -> str:
        return f"<sync {self.awaited!r}>"

    def __enter__(self) -> Self:
        self.loop()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection and end the thread; what was submitted goes on.

            client = Client()
            client.status()
            client.close()

        May be repeated.
        """
        with self._opening:
            loop, self._opened = self._opened, None
        if loop is not None:
            loop.close()

    def _open(self) -> Loop:
        """Raises what connecting does."""
        with self._opening:
            if self._opened is None:
                loop = Loop()
                try:
                    loop.enter(self.awaited)
                except BaseException:
                    loop.close()
                    raise
                self._opened = loop
            return self._opened

    @property
    def dead(self) -> DeadLetters:
        """Dead letters: `list`, `show`, `retry`, `edit`, `discard`."""
        return DeadLetters(self.awaited.dead, self.loop)

    @property
    def server(self) -> Welcome:
        """How the server introduced itself when last connected.

            print(client.server.engine, client.server.model)

        Raises what connecting does.
        """
        self.loop()
        return self.awaited.session.server

    def drill(self, kind: str, target: str | None = None, **options: Any) -> DrillReport:
        """Rehearse a failure, as `autoglm.Client.drill` does. For the operator."""
        return self.loop().wait(functools.partial(self.awaited.drill, kind, target, **options))

    get = blocking(Awaiting.get)
    tasks = iterating(Awaiting.tasks)
    edit = blocking(Awaiting.edit)
    edit_many = blocking(Awaiting.edit_many)
    cancel = blocking(Awaiting.cancel)
    cancel_many = blocking(Awaiting.cancel_many)
    cancel_job = blocking(Awaiting.cancel_job)
    eta = blocking(Awaiting.eta)
    look = blocking(Awaiting.look)
    status = blocking(Awaiting.status)
    events = iterating(Awaiting.events)
    prune = blocking(Awaiting.prune)
    pause = blocking(Awaiting.pause)
    resume = blocking(Awaiting.resume)
    requeue = blocking(Awaiting.requeue)
    requeue_all = blocking(Awaiting.requeue_all)
    pause_job = blocking(Awaiting.pause_job)
    resume_job = blocking(Awaiting.resume_job)
    drain_job = blocking(Awaiting.drain_job)
    pause_queue = blocking(Awaiting.pause_queue)
    resume_queue = blocking(Awaiting.resume_queue)
    drain_queue = blocking(Awaiting.drain_queue)
    steer_queue = blocking(Awaiting.steer_queue)
    queues = blocking(Awaiting.queues)
    tenants = blocking(Awaiting.tenants)
    set_queue = blocking(Awaiting.set_queue)
    list = blocking(Awaiting.list)
