"""How much waits, by tenant: kept in every transaction, so that a limit is exact after any restart.

`waiting` has a row for each tenant and queue of which something ever waited, and one under no name
for all of them. A limit is looked at before anything of a request is stored: it is taken whole or
not at all. What is known already takes no room, so repeating a request is never refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from autoglm.errors import ServerBusy
from autoglm.given import queue_of
from autoglm.text import one_line
from autoglm.types import TaskSpec
from runtime.store.content import body_of
from runtime.store.known import names_taken, will_be_free
from runtime.store.limits import Limits, TenantLimits
from runtime.store.standin import StandIns
from runtime.store.transaction import Transaction

RETRY_FIRST_S = 0.1
RETRY_UNKNOWN_S = 1.0
"""Where nothing has ended lately."""
RETRY_MAX_S = 30.0
ALL = ""
"""The row of all tenants together; none is called so."""
_NO_TENANT_LIMITS = TenantLimits()


class _Waiting(NamedTuple):
    tasks: int
    bytes: int


class Room:
    """What one transaction may still take in. Requests are looked at in order."""

    def __init__(self, tx: Transaction, limits: Limits, standins: StandIns) -> None:
        self._tx = tx
        self._limits = limits
        self._standins = standins
        self._seen: set[object] = set()
        """Names in the requests that were let in: they are not stored yet."""
        self._added: dict[str, _Waiting] = {}
        """What those bring, by tenant."""

    def refusal(self, specs: Sequence[TaskSpec]) -> ServerBusy | None:
        """Why a request with these tasks does not fit; None: it does, and is counted."""
        if not self._limits.any:
            return None
        seen = set(self._seen)
        bring: dict[str, _Waiting] = {}
        for spec in self._new(specs, seen):
            if (closed := self._limits.queues.get(queue_of(spec))) is not None:
                return ServerBusy(closed.why, retry_after=_bounded(closed.retry_after))
            size = len(body_of(spec).encode()) if self._limits.max_pending_bytes is not None else 0
            for name in (spec.tenant, ALL):
                before = bring.get(name, _Waiting(0, 0))
                bring[name] = _Waiting(before.tasks + 1, before.bytes + size)
        for name, more in bring.items():
            refusal = self._refusal_of(name, more)
            if refusal is not None:
                return refusal
        self._seen = seen
        taken_in = self._tx.effects.taken_in
        for name, more in bring.items():
            if name != ALL:
                taken_in[name] = taken_in.get(name, 0) + more.tasks
            before = self._added.get(name, _Waiting(0, 0))
            self._added[name] = _Waiting(before.tasks + more.tasks, before.bytes + more.bytes)
        return None

    def _new(self, specs: Sequence[TaskSpec], seen: set[object]) -> Iterable[TaskSpec]:
        """Those that would be stored and wait. `seen` learns their names."""
        taken = names_taken(self._tx, specs)
        for spec in specs:
            standin = self._standins.get(queue_of(spec))
            if standin is not None and standin.mode != "cached" and not spec.after:
                continue  # it is refused or answered at once
            pair = (spec.tenant, spec.key)
            if spec.id in taken or spec.id in seen:
                continue
            if spec.key is not None:
                if pair in seen or (pair in taken and not will_be_free(self._tx, spec)):
                    continue
                seen.add(pair)
            seen.add(spec.id)
            yield spec

    def _refusal_of(self, name: str, more: _Waiting) -> ServerBusy | None:
        row = self._tx.cx.execute(
            "SELECT coalesce(sum(tasks), 0), coalesce(sum(bytes), 0) FROM waiting WHERE tenant = ?",
            (name,),
        ).fetchone()
        added = self._added.get(name, _Waiting(0, 0))
        waiting = _Waiting(row[0] + added.tasks, row[1] + added.bytes)
        limits = self._limits
        if name != ALL:
            tenant = limits.tenants.get(name, _NO_TENANT_LIMITS)
            most, whose = tenant.max_pending, f"tenant {one_line(name, 40)}"
            refusal = _over_rate(tenant, whose, added.tasks, more.tasks)
            if refusal is not None:
                return refusal
        else:
            most, whose = limits.max_pending, "the server"
            bytes_max = limits.max_pending_bytes
            if bytes_max is not None and waiting.bytes + more.bytes > bytes_max:
                mean = max(1, waiting.bytes // max(1, waiting.tasks))
                over = (waiting.bytes + more.bytes - bytes_max) // mean + 1
                return self._busy(
                    f"the server has {waiting.bytes} bytes waiting, {more.bytes} more are over its"
                    f" limit of {bytes_max}",
                    over if more.bytes <= bytes_max else None,
                )
        if most is None or waiting.tasks + more.tasks <= most:
            return None
        return self._busy(
            f"{whose} has {waiting.tasks} tasks waiting, {more.tasks} more are over the limit of"
            f" {most}",
            waiting.tasks + more.tasks - most if more.tasks <= most else None,
        )

    def _busy(self, why: str, over: int | None) -> ServerBusy:
        """`over`: how many must end first; None: it never fits, fewer at a time might."""
        retry_after = RETRY_FIRST_S
        if over is not None:
            rate = self._limits.endings_per_s
            retry_after = over / rate if rate > 0 else RETRY_UNKNOWN_S
        return ServerBusy(why, retry_after=_bounded(retry_after))


def _over_rate(tenant: TenantLimits, whose: str, added: int, more: int) -> ServerBusy | None:
    """Why `more` tasks of a tenant can't be handed in now; `added` were a moment ago."""
    if tenant.closed:
        return ServerBusy(f"{whose} {tenant.closed}", retry_after=_bounded(tenant.closed_s))
    if tenant.new is None or added + more <= tenant.new:
        return None
    wait_s = RETRY_FIRST_S
    if more <= tenant.new_max:
        wait_s = (added + more - tenant.new) / tenant.new_per_s
    return ServerBusy(
        f"{whose} may hand in {tenant.new_per_s:g} tasks a second", retry_after=_bounded(wait_s)
    )


def _bounded(wait_s: float) -> float:
    return min(max(wait_s, RETRY_FIRST_S), RETRY_MAX_S)
