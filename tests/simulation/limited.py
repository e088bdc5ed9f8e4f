"""What must hold of limits: read from the event log once more, without the code that keeps them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator

from tests.simulation.plan import Plan

NOT_WAITING = {"running", "archived", "succeeded", "dead", "cancelled", "expired", None}


def wrong_with_limits(cx: sqlite3.Connection, plan: Plan) -> Iterator[str]:
    yield from _wrong_with_the_count(cx)
    if not plan.degrade:  # there, some were answered as they came, and never waited
        yield from _over_a_limit(cx, plan)


def _wrong_with_the_count(cx: sqlite3.Connection) -> Iterator[str]:
    """What is kept of what waits is what a look at every row finds."""
    counted: Counter[tuple[str, str, str]] = Counter()
    for state, tenant, queue, size in cx.execute(
        "SELECT state, tenant, queue, length(CAST(body AS BLOB))"
        " FROM task JOIN payload ON task = seq"
    ):
        if state not in NOT_WAITING:
            for name in ((tenant, queue), ("", "")):
                counted[*name, "tasks"] += 1
                counted[*name, "bytes"] += size
    kept: Counter[tuple[str, str, str]] = Counter()
    for tenant, queue, tasks, size in cx.execute("SELECT * FROM waiting"):
        kept[tenant, queue, "tasks"], kept[tenant, queue, "bytes"] = tasks, size
    if kept != counted:
        yield f"waiting: kept {dict(+kept)}, a count says {dict(counted)}"


def _over_a_limit(cx: sqlite3.Connection, plan: Plan) -> Iterator[str]:
    """Nothing was taken in beyond what may wait."""
    scheduler, tenants = plan.config.scheduler, plan.config.tenants
    limits = {("", "tasks"): scheduler.max_pending, ("", "bytes"): scheduler.max_pending_bytes}
    for name, tenant in tenants.items():
        limits[name, "tasks"] = tenant.max_pending
    waits: Counter[tuple[str, str]] = Counter()
    for before, after, tenant, size in cx.execute(
        "SELECT from_state, to_state, tenant, length(CAST(body AS BLOB)) FROM event e"
        " JOIN task t ON t.seq = e.task JOIN payload p ON p.task = e.task ORDER BY e.seq"
    ):
        change = (after not in NOT_WAITING) - (before not in NOT_WAITING)
        for name in (tenant, ""):
            waits[name, "tasks"] += change
            waits[name, "bytes"] += change * size
            for what in ("tasks", "bytes"):
                limit = limits.get((name, what))
                if before is None and limit is not None and waits[name, what] > limit:
                    yield f"{waits[name, what]} {what} of {name!r} wait, the limit is {limit}"
