"""The retention: sees to it that the store does not only grow.

Owns what is left of the present round. Accepts the answers to its writes, an alarm every hour and
the persister's signal that a commit left a chore. Emits writes to the persister's intake: chores
first, then what the configuration says is too old.

One slice at a time, and a pause after each, so that whoever hands in work waits for one slice at
most. When it dies nothing is lost: chores stand in the store, and what is old stays old.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from actors.messages import Commit, Refused
from runtime.actor import Actor, Statistics
from runtime.alarm import Alarm
from runtime.bell import Signal
from runtime.clock import Clock
from runtime.config import RetentionConfig
from runtime.mailbox import ActorDied, Answered, Mailbox
from runtime.store.protocol import Write
from runtime.store.upkeepprotocol import DoChore, Pruned, PruneEvents, PruneTasks

CAPACITY = 8
ROUND_S = 3600.0
PAUSE_S = 0.01
"""Between two slices: others have the persister to themselves for that long."""
RETRY_S = 1.0
"""How soon to try again what was refused."""


class RetentionStatistics(Statistics, frozen=True):
    rounds: int
    steps_left: int
    tasks: int
    """Removed since this instance started, as the following are."""
    events: int
    jobs: int


class Retention(Actor[Answered]):
    def __init__(
        self,
        mailbox: Mailbox[Answered],
        chores: Signal,
        persister: Mailbox[Commit],
        config: RetentionConfig,
        clock: Clock,
        now_ms: Callable[[], int],
    ) -> None:
        super().__init__(mailbox)
        self._chores = chores
        """Set when a commit left something to do."""
        self._persister = persister
        self._config = config
        self._clock = clock
        self._now_ms = now_ms
        self._round = Alarm(clock, Signal(mailbox.bell))
        self._next = Alarm(clock, Signal(mailbox.bell))
        self.alarms += [self._round, self._next]
        self._steps: deque[Write] = deque()
        """What is left of this round, without the one that is under way."""
        self._asked: Write | None = None
        self._rounds = 0
        self._removed = Pruned(0, 0, 0, 0, None)

    async def on_start(self) -> None:
        self._begin_round()

    def handle(self, message: Answered) -> None:
        step, self._asked, pause_s = message.context, None, PAUSE_S
        match message.answer:
            case Refused() | ActorDied():
                self._steps.appendleft(step)
                pause_s = RETRY_S
            case Pruned() as done:
                self._add_up(done)
                if done.next is not None:
                    self._steps.appendleft(msgspec.structs.replace(step, after=done.next))
            case more:
                if more:
                    self._steps.appendleft(step)
        self._next.no_later_than(self._clock.monotonic() + pause_s)

    async def settle(self) -> None:
        if self._round.rang():
            self._begin_round()
        if self._chores.take() and DoChore() not in self._steps:
            # Also when one is under way: it may have looked before this chore was there.
            self._steps.appendleft(DoChore())
            self._next.no_later_than(self._clock.monotonic())
        if self._next.rang():
            self._ask()

    def statistics(self) -> RetentionStatistics:
        gone = self._removed
        return RetentionStatistics(
            self._rounds, len(self._steps), gone.tasks, gone.events, gone.jobs
        )

    def _begin_round(self) -> None:
        now = self._clock.monotonic()
        self._round.no_later_than(now + ROUND_S)
        if self._steps or self._asked is not None:
            return  # the last round is not over
        self._rounds += 1
        self._steps.append(DoChore())
        for age, step in ((self._config.results, PruneTasks), (self._config.events, PruneEvents)):
            if age is not None:
                self._steps.append(step(self._now_ms() - age.ms))
        self._next.no_later_than(now)

    def _add_up(self, done: Pruned) -> None:
        before = self._removed
        self._removed = Pruned(
            before.tasks + done.tasks,
            before.results + done.results,
            before.events + done.events,
            before.jobs + done.jobs,
            None,
        )

    def _ask(self) -> None:
        """Ask for the first step, unless one is under way or there is no room to ask."""
        if self._asked is not None or not self._steps:
            return
        step = self._steps[0]
        reply = self.mailbox.reserve(step)
        if reply is not None and self._persister.put_nowait(Commit(step, reply)):
            self._asked = self._steps.popleft()
            return
        if reply is not None:
            reply.drop()
        self._next.no_later_than(self._clock.monotonic() + PAUSE_S)
