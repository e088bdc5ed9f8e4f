"""What a failure drill is: what is asked for, how it stands at the server, and what came of it.

These travel on the wire and are printed by `--json`, so a field is only ever added.
"""

from __future__ import annotations

from typing import Final

import msgspec

KILL_ENGINE: Final = "kill-engine"
HANG_ENGINE: Final = "hang-engine"
KILL_ACTOR: Final = "kill-actor"
SLOW_DISK: Final = "slow-disk"
FILL_DISK: Final = "fill-disk"
LASTING = frozenset({SLOW_DISK, FILL_DISK})
"""Those that last for a time and are lifted; the others are one blow."""


class DrillPlan(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be done."""

    kind: str
    target: str | None = None
    """An engine or an actor by name; None: the first engine, or the store."""
    slow_ms: int = 0
    """What each commit takes longer (`slow-disk`)."""
    for_ms: int = 0
    """How long a lasting one lasts."""


class Drill(msgspec.Struct, frozen=True, omit_defaults=True):
    """One drill as the server knows it. Times are Unix milliseconds."""

    id: str
    kind: str
    target: str
    by: str
    began_at: int
    pid: int | None = None
    """The process that was struck, where it is one."""
    new_pid: int | None = None
    noticed_at: int | None = None
    """When the server had noticed that the part is down; None: not yet, or never down."""
    lifted_at: int | None = None
    lifted: str | None = None
    """Why it was lifted."""
    up_at: int | None = None
    """When the part worked again."""


class Census(msgspec.Struct, frozen=True):
    """What the store holds, against what it held at an earlier census.

    `since` that census, given by its `tasks` and `events`; all from one look, except `held`, of
    which it is a slice.
    """

    tasks: int
    """Number of the newest task."""
    events: int
    """Number of the newest event."""
    open: int
    """Tasks that have not ended."""
    held: int
    """Of the tasks that were open at the earlier census, how many are there in this slice."""
    next: int | None
    """Where the next slice of `held` begins; None: this was the last."""
    accepted: int
    """Tasks handed in since, by the event log."""
    missing: int
    """Of those, how many are not there."""
    no_result: int
    """Tasks that succeeded since and have no result."""
    twice: int
    """Tasks that ended more than once since."""
    put_back: int
    """Tasks that went back to the queue since, uncharged."""
    put_back_open: int
    """Of those, how many have not ended."""
    charged: int
    """Failures since that were charged to a task."""
    answered_at: int | None
    """When the first task succeeded after the moment that was asked about, Unix milliseconds."""


class DrillReport(msgspec.Struct, frozen=True):
    """What `autoglm drill --json` prints. Durations are seconds since the drill began."""

    id: str
    kind: str
    target: str
    by: str
    pid: int | None
    new_pid: int | None
    began_at: int
    ok: bool
    """Nothing was lost or recorded twice, and all of it works again."""
    noticed_s: float | None
    """Until the server had noticed; None: it was never down."""
    lifted: str | None
    """Why a lasting drill was lifted: its time was over, or it was ended early."""
    up_s: float | None
    """Until the part was up again."""
    answered_s: float | None
    """Until the first task was answered after that."""
    open_before: int
    """Tasks that were acknowledged before and had not ended."""
    accepted: int
    """Tasks acknowledged meanwhile, those of the drill included."""
    lost: int
    recorded_twice: int
    put_back: int
    """Tasks that were run again, or are to be, at no charge."""
    put_back_open: int
    """Of those, how many had not ended yet."""
    charged: int
    """Failures that were charged to a task meanwhile."""
    submits: int
    """Tasks that the drill tried to hand in."""
    refused: dict[str, int]
    """Of those, how many were refused, by the error's code."""
    slowest_submit_s: float
    """The longest that an accepted one took."""
    not_back: tuple[str, ...]
    """What did not work again within the time limit."""
