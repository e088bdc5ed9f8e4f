"""Failure drills: what the operator may ask, and what is answered."""

from __future__ import annotations

from autoglm.drill import Census, Drill, DrillPlan
from autoglm.wire.base import Message


class BeginDrill(Message, frozen=True, tag="begin_drill"):
    """Do it, unless another one is under way. `id` is the client's: asked again under the same
    id, nothing is done twice. Answered by `drill`. What lasts is lifted when its time is over, and
    when this connection ends.
    """

    id: str = ""
    plan: DrillPlan = DrillPlan("")


class GetDrill(Message, frozen=True, tag="get_drill"):
    """How drill `id` stands. With `end`, it is lifted first. Answered by `drill`."""

    id: str = ""
    end: bool = False


class TakeCensus(Message, frozen=True, tag="take_census"):
    """Count, against an earlier census that gave `tasks` and `events`: the slice of tasks behind
    `after`, and the events behind `events`. Answered by `census`.
    """

    tasks: int = 0
    events: int = 0
    answered_from: int = 0
    """Unix ms; `answered_at` is about this moment."""
    after: int = 0


class DrillReply(Message, frozen=True, tag="drill"):
    """How a drill stands."""

    drill: Drill | None = None


class CensusReply(Message, frozen=True, tag="census"):
    """What the store holds."""

    census: Census | None = None
