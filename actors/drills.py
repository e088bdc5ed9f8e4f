"""The drills: failures that the operator asks for, made for real and lifted for sure.

Owns the drill under way, one at a time. Accepts `Begin` and `Look` from the frontdoor, which are
answered by `autoglm.drill.Drill`, and `ConnectionGone`. Emits nothing but answers: it strikes a
part from the outside (a signal to a process, a blow to a mailbox, a fault of the store's disk) and
what follows is the ordinary way of things, which it only watches.

A fault of the disk ends when its time is over, when whoever began it ends it or is gone, and when
this actor dies or the server stops; the store itself looks at the time at each commit. What is
known of the drill outlives the actor.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any, assert_never

import msgspec

from actors.drillparts import Parts
from actors.messages import Refused
from autoglm import drill as d
from autoglm.drill import Drill, DrillPlan
from autoglm.errors import AutoGLMError, Conflict, NotFound, ServerError
from autoglm.text import one_line
from model.hosted import HostedEngine
from runtime.actor import Actor
from runtime.alarm import Alarm
from runtime.bell import Signal
from runtime.blow import Blow
from runtime.clock import Clock
from runtime.mailbox import ActorDied, Mailbox, Reply
from runtime.store.protocol import Fault, StoreError
from runtime.supervision import ChildState, Mishap, Supervised

log = logging.getLogger("autoglm.drills")

CAPACITY = 64
WATCH_S = 0.01
"""How often the store's health is looked at while its disk is full."""
IDLE_S = 0.5
"""An actor that had nothing to do by then dies without a message in hand."""


class Drilled(Mishap):
    """What an actor dies of in a drill."""


class Begin(msgspec.Struct, frozen=True):
    """Do it. The same id again: nothing more. `connection`: with it the drill ends."""

    id: str
    plan: DrillPlan
    connection: object
    by: str
    reply: Reply


class Look(msgspec.Struct, frozen=True):
    """How does it stand? With `end`, lift it first."""

    id: str
    end: bool
    reply: Reply


class ConnectionGone(msgspec.Struct, frozen=True):
    connection: object


DrillMessage = Begin | Look | ConnectionGone


class Memory:
    """The last drill. Outlives the instances of the actor."""

    def __init__(self) -> None:
        self.drill: Drill | None = None
        self.connection: object = None
        self.began = 0.0
        """In monotonic seconds, as the times of `Supervised` are."""
        self.until_ms = 0
        self.blow: Blow | None = None

    @property
    def under_way(self) -> bool:
        return self.drill is not None and self.drill.up_at is None and self.drill.lifted is None


class Drills(Actor[DrillMessage]):
    def __init__(
        self,
        mailbox: Mailbox[DrillMessage],
        memory: Memory,
        parts: Parts,
        clock: Clock,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(mailbox)
        self._memory = memory
        self._parts = parts
        self._clock = clock
        self._now_ms = now_ms
        self._alarm = Alarm(clock, Signal(mailbox.bell))
        self.alarms.append(self._alarm)
        self._to_begin: deque[Begin] = deque()
        """At most one; its drill is in the memory already."""
        self._to_answer: deque[Look] = deque()
        self._lift: str | None = None
        """Why the drill is to be lifted now."""

    async def on_start(self) -> None:
        if self._memory.under_way:
            await self._lift_now("its actor was restarted")

    async def on_stop(self) -> None:
        if self._memory.under_way:
            await self._lift_now("its actor or the server ended")
        for message in (*self._to_begin, *self._to_answer):
            message.reply.send(ActorDied("drills"))

    def handle(self, message: DrillMessage) -> None:
        memory, drill = self._memory, self._memory.drill
        match message:
            case Begin(id) if drill is not None and drill.id == id:
                self._to_answer.append(Look(id, end=False, reply=message.reply))
            case Begin():
                self._on_begin(message)
            case Look(id, end, reply):
                if drill is None or drill.id != id:
                    reply.send(Refused(NotFound(f"no drill {one_line(id, 40)}")))
                    return
                if end and memory.under_way:
                    self._lift = "it was ended early"
                self._to_answer.append(message)
            case ConnectionGone(connection):
                if memory.connection is connection and memory.under_way:
                    self._lift = "whoever began it is gone"
            case _:
                assert_never(message)

    async def settle(self) -> None:
        self._alarm.rang()
        memory = self._memory
        while self._to_begin:
            await self._begin(self._to_begin.popleft())
        self._look()
        if memory.under_way and self._lift is None and self._now_ms() >= memory.until_ms > 0:
            self._lift = "its time was over"
        if self._lift is not None:
            why, self._lift = self._lift, None
            if memory.under_way:
                await self._lift_now(why)
        while self._to_answer:
            self._to_answer.popleft().reply.send(memory.drill)
        self._set_alarm()

    # ── beginning ────────────────────────────────────────────────────────────────────────────

    def _on_begin(self, message: Begin) -> None:
        memory, plan = self._memory, message.plan
        try:
            if memory.under_way and memory.drill is not None:
                under_way = f"{memory.drill.kind} of {memory.drill.target} by {memory.drill.by}"
                raise Conflict(f"a drill is under way, one at a time: {under_way}")
            target = self._parts.target(plan)
        except AutoGLMError as refusal:
            message.reply.send(Refused(refusal))
            return
        memory.drill = Drill(message.id, plan.kind, target, message.by, self._now_ms())
        memory.connection, memory.blow = message.connection, None
        memory.began = self._clock.monotonic()
        memory.until_ms = memory.drill.began_at + plan.for_ms if plan.kind in d.LASTING else 0
        self._to_begin.append(message)

    async def _begin(self, message: Begin) -> None:
        memory, plan = self._memory, message.plan
        drill = memory.drill
        assert drill is not None, "a drill that begins is in the memory"
        log.warning("drill by %s: %s of %s", drill.by, drill.kind, drill.target)
        try:
            if plan.kind == d.KILL_ACTOR:
                memory.blow = Blow(Drilled(f"a drill, by {drill.by}"))
                self._strike(memory.blow)
            elif plan.kind in d.LASTING:
                fault = Fault(memory.until_ms, plan.slow_ms, full=plan.kind == d.FILL_DISK)
                await self._parts.store.impair(fault)
            else:
                pid = self._engine().statistics().pid
                assert pid is not None, "an engine that is ready has a process"
                self._parts.signal(pid, SIGKILL if plan.kind == d.KILL_ENGINE else SIGSTOP)
                memory.drill = msgspec.structs.replace(drill, pid=pid)
        except (StoreError, OSError) as error:
            memory.drill = None
            message.reply.send(Refused(ServerError(str(error))))
            return
        message.reply.send(memory.drill)

    def _strike(self, blow: Blow) -> None:
        for mailbox in self._child().spec.mailboxes:
            mailbox.blow = blow
            if blow.idle:
                mailbox.bell.ring()

    # ── watching and lifting ─────────────────────────────────────────────────────────────────

    def _look(self) -> None:
        """Note what has happened to the part since."""
        drill = self._memory.drill
        if drill is None or drill.up_at is not None:
            return
        if drill.kind == d.FILL_DISK:
            blocked = self._parts.health.block is not None
            if drill.noticed_at is None and blocked and drill.lifted_at is None:
                drill = msgspec.structs.replace(drill, noticed_at=self._now_ms())
            if drill.lifted_at is not None and not blocked:
                drill = msgspec.structs.replace(drill, up_at=self._now_ms())
        elif drill.kind != d.SLOW_DISK:
            child = self._child()
            failed, started = child.failed_at, child.started_at
            if failed is not None and failed >= self._memory.began:
                drill = msgspec.structs.replace(drill, noticed_at=self._wall(failed))
                if child.state is ChildState.RUNNING and started is not None and started >= failed:
                    new_pid = None if drill.pid is None else self._engine().statistics().pid
                    drill = msgspec.structs.replace(
                        drill, up_at=self._wall(started), new_pid=new_pid
                    )
        self._memory.drill = drill

    async def _lift_now(self, why: str) -> None:
        """Whatever is left of the drill is undone."""
        drill = self._memory.drill
        assert drill is not None, "there is a drill to lift"
        if drill.kind in d.LASTING:
            try:
                await self._parts.store.impair(None)
            except StoreError as error:  # the next commit tries again
                log.warning("the disk's fault is not lifted yet: %s", error)
        elif self._memory.blow is not None:
            self._memory.blow.spent = True
        elif (
            drill.kind == d.HANG_ENGINE
            and drill.pid is not None
            # As long as it is the engine's process it is not reaped, so the number is its own.
            and self._engine().statistics().pid == drill.pid
        ):
            self._parts.signal(drill.pid, SIGCONT)
        now = self._now_ms()
        up_at = now if drill.kind == d.SLOW_DISK else None
        self._memory.drill = msgspec.structs.replace(drill, lifted_at=now, lifted=why, up_at=up_at)
        if drill.noticed_at is None or drill.kind in d.LASTING:
            log.warning("drill by %s: %s is lifted: %s", drill.by, drill.kind, why)

    def _set_alarm(self) -> None:
        memory, drill = self._memory, self._memory.drill
        if drill is None or drill.up_at is not None:
            return
        now = self._clock.monotonic()
        if drill.kind == d.FILL_DISK:
            self._alarm.no_later_than(now + WATCH_S)
        if drill.kind == d.SLOW_DISK and memory.under_way:
            self._alarm.no_later_than(now + max(0, memory.until_ms - self._now_ms()) / 1000)
        if memory.blow is not None and not memory.blow.spent and not memory.blow.idle:
            if now < memory.began + IDLE_S:
                self._alarm.no_later_than(memory.began + IDLE_S)
            else:
                memory.blow.idle = True
                self._strike(memory.blow)

    def _engine(self) -> HostedEngine[Any]:
        assert self._memory.drill is not None, "there is a drill"
        return self._parts.engine(self._memory.drill.target)

    def _child(self) -> Supervised:
        """Who is struck: an actor or an engine."""
        assert self._memory.drill is not None, "there is a drill"
        return self._parts.child(self._memory.drill)

    def _wall(self, at: float) -> int:
        """A moment of the past in Unix ms; the drill's beginning at the earliest."""
        assert self._memory.drill is not None, "there is a drill"
        return self._memory.drill.began_at + int((at - self._memory.began) * 1000)
