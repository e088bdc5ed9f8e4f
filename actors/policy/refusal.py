"""Why a write is refused at the door, before anybody is asked to carry it out."""

from __future__ import annotations

from autoglm.errors import AutoGLMError, ServerUnavailable
from runtime.store.health import Health
from runtime.store.protocol import CancelTasks, Write
from runtime.supervision import Supervised

DRAIN_RETRY_S = 2.0


def refusal(
    write: Write, now: float, health: Health, persister: Supervised, *, draining: bool
) -> AutoGLMError | None:
    """None: it is not; `now` in monotonic seconds."""
    if draining and not isinstance(write, CancelTasks):
        return ServerUnavailable("the server is shutting down", retry_after=DRAIN_RETRY_S)
    if (refused := health.refusal(now)) is not None:
        return refused
    wait_s = persister.retry_after(now)
    if wait_s is None:
        return None
    reason = f"the store is not available: {persister.last_error}"
    return ServerUnavailable(reason, retry_after=wait_s)
