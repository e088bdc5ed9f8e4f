"""The parts of a server that a drill may strike, and what speaks against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from autoglm import drill as d
from autoglm.drill import Drill, DrillPlan
from autoglm.errors import InvalidRequest, NotFound, ServerUnavailable
from autoglm.text import one_line
from model.hosted import HostedEngine
from model.hosts import HostState
from runtime.store.health import Health
from runtime.store.protocol import Store
from runtime.supervision import Supervised

FOR_MS_MAX = 600_000
SLOW_MS_MAX = 60_000
NOT_READY_RETRY_S = 0.5
STORE = "store"


class Parts(msgspec.Struct, frozen=True):
    """Filled in by the tree."""

    engines: Sequence[tuple[HostedEngine[Any], Supervised]]
    actors: Sequence[Supervised]
    store: Store
    health: Health
    signal: Callable[[int, int], None]

    def target(self, plan: DrillPlan) -> str:
        """What is to be struck, by name.

        Raises NotFound, InvalidRequest, and ServerUnavailable where it is down already.
        """
        match plan.kind:
            case d.KILL_ENGINE | d.HANG_ENGINE:
                names = [engine.name for engine, _ in self.engines]
                name = _known(names, plan.target or names[0], "engine")
                state = self.engine(name).statistics().state
                if state is not HostState.READY:
                    raise ServerUnavailable(
                        f"{name} is {state.value}: try again when it is ready",
                        retry_after=NOT_READY_RETRY_S,
                    )
                return name
            case d.KILL_ACTOR:
                names = [child.spec.name for child in self.actors]
                return _known(names, plan.target or "", "actor")
            case d.SLOW_DISK | d.FILL_DISK:
                _check("the time it lasts", plan.for_ms, FOR_MS_MAX)
                if plan.kind == d.SLOW_DISK:
                    _check("what a commit takes longer", plan.slow_ms, SLOW_MS_MAX)
                return STORE
            case kind:
                raise InvalidRequest(f"no drill {one_line(kind, 40)!r}")

    def engine(self, name: str) -> HostedEngine[Any]:
        return next(engine for engine, _ in self.engines if engine.name == name)

    def child(self, drill: Drill) -> Supervised:
        """The actor or engine that is struck."""
        if drill.kind == d.KILL_ACTOR:
            return next(child for child in self.actors if child.spec.name == drill.target)
        return next(child for engine, child in self.engines if engine.name == drill.target)


def _known(names: Sequence[str], name: str, what: str) -> str:
    if name not in names:
        raise NotFound(f"no {what} {one_line(name, 40)!r}; there are: {', '.join(names)}")
    return name


def _check(what: str, value_ms: int, limit_ms: int) -> None:
    if not 1 <= value_ms <= limit_ms:
        raise InvalidRequest(f"{what}: {value_ms} ms is not between 1 and {limit_ms}")
