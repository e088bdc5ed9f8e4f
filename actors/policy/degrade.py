"""What queues do while no engine can serve: the decision, without I/O.

No engine can serve while the breakers of all of them are open or half-open. One that loads for the
first time, or is restarted at once after a death, has a closed breaker: its tasks wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from autoglm.degrade import QueueStatus
from runtime.breaker import Breaker, BreakerState
from runtime.store.standin import StandIn, StandIns


class Outage(msgspec.Struct, frozen=True):
    """No engine can serve."""

    retry_after: float | None
    """Seconds until one may be started; None: one is being tried now."""


def outage(breakers: Sequence[Breaker], now: float) -> Outage | None:
    """Whether there is one; `now` in monotonic seconds."""
    if not breakers or any(breaker.state is BreakerState.CLOSED for breaker in breakers):
        return None
    held = [breaker for breaker in breakers if breaker.state is BreakerState.OPEN]
    return Outage(min((breaker.wait_s(now) for breaker in held), default=None))


def stand_ins(queues: Iterable[QueueStatus], out: Outage) -> StandIns:
    """What becomes of new tasks now, by queue; those that wait are left out."""
    found: dict[str, StandIn] = {}
    for queue in queues:
        match queue.degrade:
            case "fail_fast":
                found[queue.name] = StandIn("fail_fast", _why(queue.name, out), out.retry_after)
            case "default":
                found[queue.name] = StandIn("default", queue.default_text or "")
            case "cached":
                found[queue.name] = StandIn("cached")
            case "queue":
                pass
    return found


def _why(queue: str, out: Outage) -> str:
    again = "one is being tried now"
    if out.retry_after is not None:
        again = f"the next one may start in {math.ceil(out.retry_after)} s"
    return f"no engine can serve, and queue {queue!r} does not wait: {again}"
