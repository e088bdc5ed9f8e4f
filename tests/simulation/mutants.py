"""Planted bugs: one line of the real code changed. A simulation that does not find them would
prove nothing.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from collections.abc import Generator, Sequence
from types import FunctionType
from typing import Any
from unittest.mock import patch

import msgspec

from actors.batcher import Batcher
from actors.messages import Commit
from actors.persister import Persister
from actors.policy import degrade, poison, retry, shares
from actors.policy.agenda import Agenda
from actors.policy.backlog import Backlog
from actors.policy.staging import Staging
from actors.policy.window import Window
from actors.queues import Queues
from actors.scheduler import Scheduler
from actors.telling import Telling
from actors.tree import Tree
from autoglm.types import Task, TaskState
from autoglm.wire import Accepted
from model.engine import Completion
from model.host import EngineHost
from model.hosted import HostedEngine
from model.simulated import SimulatedEngine
from model.vitals import Vitals
from runtime.breaker import Breaker
from runtime.clock import SteadyWall
from runtime.mailbox import Mailbox, Reply
from runtime.store import (
    blocked,
    deadletters,
    degraded,
    editing,
    execution,
    intake,
    opening,
    recording,
    same,
    steering,
    urgency,
    waiting,
)
from runtime.store.jobprotocol import InsertLines
from runtime.store.protocol import InsertTasks
from runtime.store.transaction import Transaction
from runtime.supervision import Supervisor


class Mutant(msgspec.Struct, frozen=True):
    """In `name` of `owner` (a module or a class), a function or SQL, `before` becomes `after`."""

    owner: Any
    name: str
    before: str
    after: str

    @contextlib.contextmanager
    def planted(self) -> Generator[None]:
        """The function's code is exchanged, so that whoever holds the function has the bug."""
        original: FunctionType | str = getattr(self.owner, self.name)
        if isinstance(original, str):
            self._check(original)
            with patch.object(self.owner, self.name, original.replace(self.before, self.after)):
                yield
            return
        source = textwrap.dedent(inspect.getsource(original))
        self._check(source)
        names: dict[str, Any] = dict(original.__globals__)
        exec(source.replace(self.before, self.after), names)
        healthy = original.__code__
        helpers = {"promise": _promise, "promise_lines": _promise_lines, "swapped": _swapped}
        with patch.dict(original.__globals__, helpers):
            original.__code__ = names[self.name].__code__
            try:
                yield
            finally:
                original.__code__ = healthy

    def _check(self, source: str) -> None:
        if source.count(self.before) != 1:
            raise AssertionError(f"{self.name} has changed: {self.before!r} is not in it once")


def _promise(batch: Sequence[Commit]) -> None:
    """Acknowledge tasks that are not committed yet."""
    for message in batch:
        if isinstance(message.write, InsertTasks) and message.reply is not None:
            tasks = (Task(spec.id, TaskState.PENDING) for spec in message.write.tasks)
            message.reply.send(tuple(Accepted(task) for task in tasks))


def _promise_lines(batch: Sequence[Commit]) -> None:
    """Acknowledge lines of jobs that are not committed yet."""
    for message in batch:
        write = message.write
        if isinstance(write, InsertLines) and message.reply is not None:
            message.reply.send(max(line.line for line in write.lines))


def _swapped(completions: Sequence[Completion]) -> list[Completion]:
    """The same completions with their texts in reverse order."""
    texts = [completion.text for completion in reversed(completions)]
    return [
        msgspec.structs.replace(completion, text=text)
        for completion, text in zip(completions, texts, strict=True)
    ]


MUTANTS = {
    "tasks are acknowledged before the commit": Mutant(
        Persister,
        "_commit",
        "        try:\n            if health",
        "        promise(batch)\n        try:\n            if health",
    ),
    "running tasks are not recovered": Mutant(
        execution,
        "put_back",
        "for seq, attempt, queue, tenant, rank, last_event in gone:",
        "for _ in []:",
    ),
    "results are swapped within a batch": Mutant(
        HostedEngine,
        "_take",
        "for completion in completions:",
        "for completion in swapped(completions):",
    ),
    "a late attempt is not fenced off": Mutant(
        recording,
        "record_outcomes",
        "running.pop((outcome.seq, outcome.attempt), None)",
        "next((row for (seq, _), row in running.items() if seq == outcome.seq), None)",
    ),
    "poison is tried for ever": Mutant(
        retry, "_lost", "if convicted(task.deaths, flight.trial):", "if False:"
    ),
    "commits are not synced": Mutant(
        opening, "prepare", "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
    ),
    "a jump of the clock is followed": Mutant(
        SteadyWall,
        "now_ms",
        "return self._wall_ms + int((self._clock.monotonic() - self._began) * 1000)",
        "return self._clock.wall_ms()",
    ),
    "ranks go back with the clock": Mutant(
        Transaction, "__init__", "max(counters.logical_ms, now_ms)", "now_ms"
    ),
    "a crash loses what was not begun": Mutant(
        Mailbox, "restore", "self._queue.extendleft(reversed(lent[taken:]))", "pass"
    ),
    "arrivals during a refill are forgotten": Mutant(
        Window, "arrived", "self._meanwhile[key] = begins.get(key[1])", "pass"
    ),
    "lines of a job are acknowledged before the commit": Mutant(
        Persister,
        "_commit",
        "        try:\n            if health",
        "        promise_lines(batch)\n        try:\n            if health",
    ),
    "nothing is synced, checkpoints neither": Mutant(
        opening, "prepare", "PRAGMA synchronous = FULL", "PRAGMA synchronous = OFF"
    ),
    "what ran is not put back at the start": Mutant(Tree, "run", "await self.put_back()", "pass"),
    "the death of an engine is charged": Mutant(
        retry,
        "_lost",
        "return _put_back(task, flight.partial, died=True)",
        "return Outcome(task.seq, task.attempt, TaskState.PENDING, charged=True, died=True)",
    ),
    "a claim is not fenced by the state": Mutant(
        execution, "_SELECT_CLAIMABLE", "t.state = 'pending' AND", ""
    ),
    "a restarted batcher forgets what had ended": Mutant(
        Batcher, "on_start", "self._to_record.append(flight)", "pass"
    ),
    "what was only staged is not put back": Mutant(
        Batcher, "on_start", "PutBack(self.name, held)", "PutBack('nobody', held)"
    ),
    "news that the scheduler missed are lost": Mutant(
        Persister,
        "_publish",
        "if not outlets.scheduler.put_nowait(moved):",
        "if not outlets.scheduler.put_nowait(moved) and False:",
    ),
    "news that the frontdoor missed are lost": Mutant(
        Persister, "_publish", "outlets.frontdoor_missed.set()", "pass"
    ),
    "a reply goes out twice": Mutant(
        Reply, "send", "mailbox, self._mailbox = self._mailbox, None", "mailbox = self._mailbox"
    ),
    "pauses before a retry are forgotten at a restart": Mutant(
        Persister, "run", "self._set_due(summary.next_due_ms)", "pass"
    ),
    "a late result of a cancelled task is recorded": Mutant(
        recording, "_SELECT_RUNNING", "WHERE t.state = 'running'", ""
    ),
    "the window forgets how far it sees when it is cut": Mutant(
        Window, "keep", "self._horizon = self._keys[-1] if self._keys else None", "pass"
    ),
    "an old read joins on to the window": Mutant(
        Backlog, "read", "if reading is not self._reading", "if False"
    ),
    "the cap of a queue is not looked at": Mutant(
        shares._Caps,  # pyright: ignore[reportPrivateUsage]
        "queue_full",
        "return cap is not None and",
        "return False and",
    ),
    "the cap of a tenant is not looked at": Mutant(
        shares._Caps,  # pyright: ignore[reportPrivateUsage]
        "_tenant_full",
        "(cap is not None and running >= cap)",
        "False",
    ),
    "who was held at a cap is not let go": Mutant(
        Agenda, "_end", "self._shares.freed(lane)", "pass"
    ),
    "a repeated line of a job counts again": Mutant(
        intake, "insert_lines", "line.line > submitted", "line.line > 0"
    ),
    "a restarted batcher does not adopt what flies": Mutant(
        Batcher, "on_start", "if flight.ended is not None:", "if True:"
    ),
    "who waits is not looked up again": Mutant(
        Telling, "look_at_all", "self._look_up(self._waiting.tasks())", "pass"
    ),
    "an engine that hangs is not noticed": Mutant(
        Vitals, "hung", "idle_s > self._limit_s", "False"
    ),
    "chunks do not know their place": Mutant(
        EngineHost, "_streamer", "offset += len(text)", "offset += 0"
    ),
    "a task runs though what it waits for failed": Mutant(
        blocked, "tell", "end.state is not TaskState.SUCCEEDED and", "False and"
    ),
    "a task is cancelled though it was to run all the same": Mutant(
        blocked, "tell", 'after_failure != "run"', "True"
    ),
    "one end is enough for who waits for several": Mutant(
        blocked, "tell", "elif not held:", "else:"
    ),
    "the rest of those who wait is forgotten": Mutant(
        blocked, "tell", "if len(rows) >= room:", "if False:"
    ),
    "what an urgent task waits for stays where it is": Mutant(
        blocked, "block", "hand_on(tx, [each.task for each in new if each.upstream])", "pass"
    ),
    "urgency makes a task less urgent": Mutant(
        urgency, "_GIVE", "SET rank = min(rank, :rank)", "SET rank = max(rank, :rank)"
    ),
    "a graph that is refused is stored in part": Mutant(
        intake, "insert_graph", 'tx.cx.execute("ROLLBACK TO graph")', "pass"
    ),
    "an older key of what became urgent is claimed too": Mutant(
        Agenda, "take", "if seq in self._running:", "if False:"
    ),
    "a retried dead letter keeps its failures": Mutant(deadletters, "_retry", "failures = 0, ", ""),
    "the attempts of a retried dead letter begin anew": Mutant(
        deadletters, "_retry", "failures = 0, ", "failures = 0, attempt = 0, "
    ),
    "an open breaker holds nothing": Mutant(
        Supervisor, "_hold", "while (delay := child.breaker.wait_s(now)) > 0:", "while False:"
    ),
    "a breaker never trips": Mutant(Breaker, "failed", "(trip or self._should_trip(now))", "trip"),
    "a suspect does not fly alone": Mutant(
        Staging, "next_batch", "self.on_trial, self._served = True, 0", "self._served = 0"
    ),
    "whoever is on trial is convicted": Mutant(
        poison, "convicted", "trial == 1 and is_suspect(deaths)", "trial > 0"
    ),
    "one engine that is down is taken for all": Mutant(
        degrade, "outage", "any(breaker.state is", "all(breaker.state is"
    ),
    "an answer without an engine is not marked": Mutant(
        degraded, "_ANSWERED", "degraded = ?", "error = coalesce(NULL, iif(?, NULL, NULL))"
    ),
    "earlier answers of other tenants are given": Mutant(
        same, "_FIND", "s.hash = ? AND t.tenant = ?", "? != ?"
    ),
    "what was set of a queue is gone after a restart": Mutant(
        Queues, "recalled", "self._live =", "_ ="
    ),
    "an edited task keeps its old rank": Mutant(
        editing, "_change", "tx.ranking.rank(_spec(wanted), row.created_at)", "row.rank"
    ),
    "an edited task is taken out of its place and put nowhere": Mutant(
        editing, "_change", "tx.ready(row.queue, row.tenant, rank, row.seq)", "pass"
    ),
    "the limit on what waits is looked at too late": Mutant(
        waiting.Room,
        "_refusal_of",
        "waiting.tasks + more.tasks <= most",
        "waiting.tasks <= most",
    ),
    "what waits is counted up and never down": Mutant(
        Transaction,
        "_count_waiting",
        "if not sign:",
        "if sign < 1:",
    ),
    "a queue that is resumed is not looked at": Mutant(
        Persister, "_publish", "if effects.paused:", "if False:"
    ),
    "a task that is resumed stays where it is": Mutant(
        steering, "_steer", "tx.ready(queue, tenant, rank, seq)", "pass"
    ),
    "nobody has time to wait": Mutant(
        Transaction, "_begin_waits", "at = self.now_ms + longest[queue]", "at = self.now_ms"
    ),
    "who is held by a rate is not let go": Mutant(
        Agenda, "tick", 'self._shares.freed(("", tenant))', "pass"
    ),
    "nobody wakes for the end of a hold": Mutant(
        Scheduler, "settle", "self._alarm.no_later_than(at)", "pass"
    ),
    "what is stopped for others is charged": Mutant(
        retry,
        "outcome",
        "return _put_back(task, ended.partial or flight.partial)",
        "return Outcome(task.seq, task.attempt, TaskState.RETRYING, charged=True)",
    ),
    "what was made before is counted once more": Mutant(
        retry, "outcome", "usage.completion_tokens - ended.before", "usage.completion_tokens"
    ),
    "a checkpoint outlives its task": Mutant(
        recording, "record_outcomes", "checkpoints.forget(tx, over)", "pass"
    ),
    "an answer that goes on loses its beginning": Mutant(
        SimulatedEngine, "partial", "generation.text", "generation.digest"
    ),
    "what comes for an urgent task is lost": Mutant(
        Batcher, "_on_assigned", "self._staging.add(", "urgent or self._staging.add("
    ),
    "a trial is never made smaller": Mutant(
        poison, "trial_max", "max(1, slots >> (deaths - 1))", "slots"
    ),
}
