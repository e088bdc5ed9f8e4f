"""Conducting a failure drill: break a part on purpose and measure what became of the work.

The server does the breaking and notes when the part was down and up again. What was lost is not
taken from it on trust: all tasks that were open before are counted again afterwards, and tasks of
the drill's own are handed in all the while, as any client would, until one is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import anyio
import msgspec

from autoglm import wire
from autoglm.drill import (
    HANG_ENGINE,
    KILL_ACTOR,
    KILL_ENGINE,
    LASTING,
    SLOW_DISK,
    Census,
    Drill,
    DrillPlan,
    DrillReport,
)
from autoglm.errors import AutoGLMError, NotFound, ProtocolError
from autoglm.ids import Ids
from autoglm.outcomes import accepted_task
from autoglm.retry import Patience
from autoglm.session import Session
from autoglm.spec import task_spec
from autoglm.types import TaskSpec

TENANT = "drill"
"""Whose tasks those of a drill are, and of which kind."""
PROMPT = "This is a failure drill. Say: ready."
TOKENS_MAX = 8
PROBE_EVERY_S = 0.25
PROBES_OPEN_MAX = 8
"""Tasks of the drill that have no answer yet: at this many it hands in no more."""
POLL_S = 0.1
LAST_LOOK_S = 30.0
"""What the last look may take when the time limit is over."""
FOR_S, TIMEOUT_S = 10.0, 120.0
_AT_ONCE = Patience(window_s=0, busy_s=0)
_NO_EVENTS = 2**53
_OVERDUE = 1
"""A deadline long ago: the drill's tasks go before all others, however many wait."""


class Progress(msgspec.Struct, frozen=True):
    """How far a drill is."""

    doing: str
    submits: int
    refused: int


Report = Callable[[Progress], None]


class Drills:
    """`client.drill`: for the operator (tenant None) of a server that says `drills: true`."""

    def __init__(self, session: Session, ids: Ids) -> None:
        self._session = session
        self._ids = ids

    async def __call__(
        self,
        kind: str,
        target: str | None = None,
        *,
        slow_ms: int = 0,
        for_s: float = FOR_S,
        timeout: float = TIMEOUT_S,
        report: Report = lambda _: None,
    ) -> DrillReport:
        """Do it (`kill-engine`, `hang-engine`, `kill-actor`, `slow-disk`, `fill-disk`) and say what
        came of it, once all works again or `timeout` seconds later. `for_s` is how long a drill of
        the disk lasts before that. `report` hears how far it is.

        Raises NotAllowed, NotFound for an unknown engine or actor, Conflict while another drill is
        under way, and ServerError where there is nothing to break.
        """
        for_ms = round(for_s * 1000) if kind in LASTING else 0
        plan = DrillPlan(kind, target, slow_ms, for_ms)
        return await Rehearsal(self._session, self._ids, plan, timeout, report).run()


class Rehearsal:
    """One drill from the first look to the last."""

    def __init__(
        self, session: Session, ids: Ids, plan: DrillPlan, timeout_s: float, report: Report
    ) -> None:
        self._session = session
        self._ids = ids
        self._plan = plan
        self._limit_s = plan.for_ms / 1000 + timeout_s
        self._patience = Patience(window_s=self._limit_s, busy_s=self._limit_s)
        self._report = report
        self._id = ids.mint()
        self._acknowledged: list[str] = []
        self._open: set[str] = set()
        """Of those, the ones that had not ended when last looked at."""
        self._refused: Counter[str] = Counter()
        self._slowest_s = 0.0
        self._census_s = 0.0
        self._not_back: list[str] = []

    async def run(self) -> DrillReport:
        before = await self._census(wire.TakeCensus(0, events=_NO_EVENTS))
        since = wire.TakeCensus(0, 0, before.events)
        begin = wire.BeginDrill(0, self._id, self._plan)
        drill = await self._drill(begin, self._session.patience)
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_submitting)
            with anyio.move_on_after(self._limit_s):
                await self._until_all_is_well(drill, since)
            group.cancel_scope.cancel()
        with anyio.fail_after(LAST_LOOK_S):
            return await self._last_look(before)

    # ── while it lasts ───────────────────────────────────────────────────────────────────────

    async def _until_all_is_well(self, drill: Drill, since: wire.TakeCensus) -> None:
        part = drill.target
        self._not_back = [f"{part} is not up again"]
        while drill.up_at is None:
            self._tell(_doing(drill))
            await anyio.sleep(POLL_S)
            drill = await self._drill(wire.GetDrill(0, self._id), self._patience)
        self._not_back = ["no task was answered afterwards"]
        since = msgspec.structs.replace(since, answered_from=drill.up_at)
        while (now := await self._census_now_and_then(since)).answered_at is None:
            self._tell(f"{part} is up again; waiting for an answer")
            await self._own_are_open()  # what another engine answered meanwhile makes room
        self._not_back = []
        while now.put_back_open or await self._own_are_open():
            own = len(self._open)
            self._tell(f"all works; waiting for {now.put_back_open + own} tasks to be answered")
            now = await self._census_now_and_then(since)

    async def _census_now_and_then(self, since: wire.TakeCensus) -> Census:
        """A census after a pause: the longer it takes, the more others wait for it."""
        await anyio.sleep(max(POLL_S, 4 * self._census_s))
        began = anyio.current_time()
        census = await self._census(since)
        self._census_s = anyio.current_time() - began
        return census

    async def _keep_submitting(self) -> None:
        while True:
            if len(self._open) < PROBES_OPEN_MAX:
                await self._submit()
            await anyio.sleep(PROBE_EVERY_S)

    async def _submit(self) -> None:
        """Hand in a task and take no for an answer."""
        spec, began = self._probe(), anyio.current_time()
        try:
            reply = await self._session.call(wire.Submit(0, (spec,)), wire.Submitted, _AT_ONCE)
            task = accepted_task(reply.tasks[0])
        except AutoGLMError as error:
            self._refused[error.code] += 1
        else:
            self._acknowledged.append(task.id)
            self._open.add(task.id)
            self._slowest_s = max(self._slowest_s, anyio.current_time() - began)

    def _probe(self) -> TaskSpec:
        number = len(self._acknowledged) + sum(self._refused.values()) + 1
        spec = task_spec(
            PROMPT,
            id=self._ids.mint(),
            now_ms=self._ids.now_ms(),
            tenant=TENANT,
            kind=TENANT,
            key=f"drill {self._id} {number}",
            max_tokens=TOKENS_MAX,
        )
        return msgspec.structs.replace(spec, deadline_at=_OVERDUE)

    async def _own_are_open(self) -> bool:
        for id in sorted(self._open):
            reply = await self._session.call(wire.Get(0, id), wire.AnswerReply, self._patience)
            if reply.answer is None or reply.answer.task.state.ended:
                self._open.discard(id)
        return bool(self._open)

    # ── afterwards ───────────────────────────────────────────────────────────────────────────

    async def _last_look(self, before: Census) -> DrillReport:
        drill = await self._drill(wire.GetDrill(0, self._id, end=True), self._patience)
        if self._not_back and drill.up_at is None:
            self._not_back = [await self._how_it_is(drill)]
        if self._open:
            await self._session.call(wire.Cancel(0, tuple(sorted(self._open))), wire.Cancelled)
        asked = wire.TakeCensus(0, before.tasks, before.events, drill.up_at or _NO_EVENTS)
        after = await self._census(asked)
        held, place = after.held, after.next
        while place is not None:
            more = await self._census(msgspec.structs.replace(asked, after=place))
            held, place = held + more.held, more.next
        missing = max(after.missing, await self._missing_of_own())
        lost = max(0, before.open - held) + missing + after.no_result
        return self._write_up(drill, before, after, lost)

    def _write_up(self, drill: Drill, before: Census, after: Census, lost: int) -> DrillReport:
        def since(at: int | None) -> float | None:
            return None if at is None else max(0, at - drill.began_at) / 1000

        return DrillReport(
            *(drill.id, drill.kind, drill.target, drill.by),
            *(drill.pid, drill.new_pid, drill.began_at),
            ok=not (lost or after.twice or self._not_back),
            noticed_s=since(drill.noticed_at),
            lifted=drill.lifted if drill.kind in LASTING else None,
            up_s=since(drill.up_at),
            answered_s=since(after.answered_at),
            open_before=before.open,
            accepted=after.accepted,
            lost=lost,
            recorded_twice=after.twice,
            put_back=after.put_back,
            put_back_open=after.put_back_open,
            charged=after.charged,
            submits=len(self._acknowledged) + sum(self._refused.values()),
            refused=dict(self._refused),
            slowest_submit_s=round(self._slowest_s, 3),
            not_back=tuple(self._not_back),
        )

    async def _missing_of_own(self) -> int:
        missing = 0
        for id in self._acknowledged:
            try:
                await self._session.call(wire.Get(0, id), wire.AnswerReply, self._patience)
            except NotFound:
                missing += 1
        return missing

    async def _how_it_is(self, drill: Drill) -> str:
        """The part that is not up again, in the words of the status."""
        if drill.noticed_at is None and drill.kind not in LASTING:
            return f"{drill.target} was never noticed as down, and goes on"
        reply = await self._session.call(wire.GetStatus(0), wire.StatusReply, self._patience)
        status = reply.status
        if status is None:
            raise ProtocolError("the server's status is empty")
        for engine in status.engines:
            if engine.id == drill.target:
                why = f": {engine.error}" if engine.error else ""
                return f"{engine.id} is {engine.state}, its breaker {engine.breaker}{why}"
        for actor in status.actors:
            if actor.name == drill.target:
                return f"{actor.name} is {actor.state}, its breaker {actor.breaker}"
        return status.server.trouble or f"{drill.target} is not as it was"

    async def _census(self, message: wire.TakeCensus) -> Census:
        reply = await self._session.call(message, wire.CensusReply, self._patience)
        if reply.census is None:
            raise ProtocolError("the server's census is empty")
        return reply.census

    async def _drill(self, message: wire.Request, patience: Patience) -> Drill:
        reply = await self._session.call(message, wire.DrillReply, patience)
        if reply.drill is None:
            raise ProtocolError("the server's drill is empty")
        return reply.drill

    def _tell(self, doing: str) -> None:
        refused = sum(self._refused.values())
        self._report(Progress(doing, len(self._acknowledged) + refused, refused))


def _doing(drill: Drill) -> str:
    """What is going on before the part is up again."""
    done = {
        KILL_ENGINE: f"{drill.target} (pid {drill.pid}) was killed",
        HANG_ENGINE: f"{drill.target} (pid {drill.pid}) was stopped",
        KILL_ACTOR: f"{drill.target} was told to die",
        SLOW_DISK: "the disk is slow",
    }.get(drill.kind, "the disk is full")
    if drill.lifted_at is not None:
        return f"{done}; lifted, waiting for it to work again"
    if drill.noticed_at is not None:
        return f"{done}; noticed, waiting for it to come back"
    return done if drill.kind == SLOW_DISK else f"{done}; not noticed yet"
