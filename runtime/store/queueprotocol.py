"""What can be asked of the store about queues."""

from __future__ import annotations

from autoglm.degrade import Degrade
from autoglm.wire import QueueDeed
from runtime.store.overflow import Overflow
from runtime.store.protocol import Write


class BeginServing(Write, frozen=True):
    """A server begins. Result: None."""

    what: str
    """The kind and the model of its engines: what results from now on are of."""
    cached: tuple[str, ...]
    """Queues that answer with earlier results by the configuration."""
    overflow: tuple[Overflow, ...] = ()
    """What becomes of tasks that wait too long, where they do not just wait."""


class SteerQueue(Write, frozen=True):
    """Begin nothing more of a queue (pause), take nothing new into it and finish what waits
    (drain), or go on with it (resume). Again: nothing changes. Result: None.
    """

    queue: str
    deed: QueueDeed
    by: str | None = None


class SetQueue(Write, frozen=True):
    """Set what a queue does while no engine can serve; `degrade` None: go back to what the
    configuration says. Result: None.
    """

    queue: str
    degrade: Degrade | None
    default_text: str | None
    """None: as it was."""
    cached: tuple[str, ...]
    """As in `BeginServing`."""
    by: str | None = None
