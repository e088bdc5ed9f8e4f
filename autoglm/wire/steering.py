"""Taking tasks out of the line and putting them back: what may be asked."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from autoglm.wire.base import LIST_MAX, Message

Deed = Literal["pause", "resume", "drain", "requeue"]
"""pending and retrying tasks become paused, paused ones pending, archived ones pending. A job that
is drained takes no more lines until it is resumed, and what is paused of it becomes pending.
"""
QueueDeed = Literal["pause", "resume", "drain"]
"""Nothing of it is begun; all is as ever; nothing new is taken in, and what waits is finished."""


class Steer(Message, frozen=True, tag="steer"):
    """Do so with tasks of `ids`, with those of a job, or, to requeue, with `every` archived one;
    the latter two in slices: `after` is the `next` of the slice before. What is in another state
    stays as it is. Answered by `cancelled`, whose `count` is of those that were changed.
    """

    deed: Deed = "pause"
    ids: Annotated[tuple[str, ...], msgspec.Meta(max_length=LIST_MAX)] = ()
    job: str | None = None
    every: bool = False
    after: int = 0


class SteerQueue(Message, frozen=True, tag="steer_queue"):
    """Pause, drain or resume queue `name`; it outlives the server. For the operator. Answered by
    `queues_are`, of this one.
    """

    name: str = ""
    deed: QueueDeed = "pause"
