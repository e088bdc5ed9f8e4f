"""What runs next: the backlog, whose turn it is, and what runs already, as one decision. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from actors.policy.backlog import KEYS_MAX, Backlog, Reading
from actors.policy.rates import Rates
from actors.policy.running import Running
from actors.policy.shares import BY_RANK, POLICIES, Rules
from autoglm.types import Usage
from runtime.store.protocol import Key, Lane, Left
from runtime.store.scheduleprotocol import Schedule

_NONE: Mapping[Lane, Iterable[Key]] = {}
_NOTHING: Mapping[int, int] = {}

URGENT_MAX = 1024
"""Urgent tasks that are remembered as such while they wait; the others wait for a slot."""


class Agenda:
    def __init__(
        self, policy: str, rules: Rules, rates: Rates | None = None, *, keys_max: int = KEYS_MAX
    ) -> None:
        """`policy`: of `scheduler.policy`; `rates`: what is known of them, None: there are none."""
        self._running = Running()
        self._rates = rates or Rates({}, 0)
        self._shares = POLICIES[policy](rules, self._running, self._rates)
        self._backlog = Backlog(self._shares, keys_max, together=policy not in BY_RANK)
        self._urgent: dict[int, None] = {}
        """What waits and is urgent, as far as that was heard; oldest first."""

    def tick(self, now: float) -> None:
        """It is `now`, in monotonic seconds: holds may be over."""
        self._rates.now = now
        for tenant in self._rates.let_go():
            self._shares.freed(("", tenant))

    @property
    def next_tick(self) -> float | None:
        """When a hold is over, if nothing happens before."""
        return self._rates.next_at

    def moved(
        self,
        ready: Mapping[Lane, Iterable[Key]],
        left: Iterable[Left],
        gone: Mapping[Lane, Iterable[Key]] = _NONE,
        urgent: Iterable[int] = (),
        begins: Mapping[int, int] = _NOTHING,
    ) -> None:
        """These became pending, those no longer run; before, `gone` became void. `urgent`: those in
        a hurry that were not waiting before, or not in a hurry; `begins`: what new ones begin
        with, by number.
        """
        for keys in gone.values():
            for _, seq in keys:
                self._urgent.pop(seq, None)
        self._urgent.update(dict.fromkeys(urgent))
        while len(self._urgent) > URGENT_MAX:
            del self._urgent[next(iter(self._urgent))]
        self._end(left)
        self._backlog.gone(gone)
        self._backlog.arrived(ready, begins)

    def take(self, count: int, *, urgent: bool = False) -> tuple[int, ...]:
        """Up to `count` tasks that are to be claimed, by number, in the order they are to run.

        `urgent`: only as long as what is next is known to be urgent.
        """
        taken: list[int] = []
        self._look()
        while len(taken) < count and (lane := self._shares.next()) is not None:
            if urgent and not self._is_urgent(self._backlog.head(lane)):
                break
            # Who is alone takes all there is: there is nobody to take turns with.
            turn = count - len(taken) if not urgent and self._shares.alone(lane) else 1
            tokens = 0.0
            for _, seq in self._backlog.take(lane, turn):
                self._urgent.pop(seq, None)
                if seq in self._running:
                    continue  # it was edited while it was being claimed: the key is an old one
                taken.append(seq)
                tokens += self._running.begin(seq, lane)
                self._rates.began(lane[1])
            if tokens:
                self._shares.charge(lane, tokens)
            self._look()
        return tuple(taken)

    def not_claimed(self, seqs: Iterable[int]) -> None:
        """They were taken, but somebody else had been faster."""
        self._end([Left(seq, Usage()) for seq in seqs])

    def lost_count(self, claiming: Iterable[int]) -> None:
        """News were missed: only the store knows. `claiming`: claims under way."""
        self._backlog.lost_count()
        self._running.forget(claiming)

    def learned(self, schedule: Schedule) -> None:
        """The store's answer to what was missed, asked after `lost_count`."""
        self._running.learned(schedule.running)
        self._backlog.learned(schedule.heads)

    def reading_begins(self) -> Reading | None:
        """The read of the store that is to be made now, if any."""
        self._look()
        return self._backlog.reading_begins(idle=self._shares.next() is None)

    def read(
        self,
        reading: Reading,
        found: Sequence[Sequence[Key]],
        begins: Mapping[int, int] = _NOTHING,
    ) -> None:
        """The store's answer to `reading`."""
        self._backlog.read(reading, found, begins)

    def read_failed(self, reading: Reading) -> None:
        """It could not be made: it will be wanted again."""
        self._backlog.read_failed(reading)

    def waits(self, lane: Lane) -> bool:
        """Whether more of the lane is pending, as far as is known."""
        return lane in self._backlog

    @property
    def held(self) -> int:
        """Keys of the backlog that are known."""
        return len(self._backlog)

    @property
    def running(self) -> int:
        return len(self._running)

    def running_by_lane(self) -> dict[Lane, int]:
        return self._running.lanes()

    def _is_urgent(self, head: Key | None) -> bool:
        return head is not None and head[1] in self._urgent

    def _end(self, left: Iterable[Left]) -> None:
        """What they took is settled lane by lane: most that end together are of one."""
        owed: dict[Lane, float] = {}
        for seq, usage in left:
            charge = self._running.end(seq, usage)
            if charge is not None:
                lane = charge.lane
                owed[lane] = owed.get(lane, 0.0) + charge.tokens
                self._rates.ended(lane[1], usage.total_tokens)
        for lane, tokens in owed.items():
            self._shares.settle(lane, tokens)
            self._shares.freed(lane)

    def _look(self) -> None:
        for lane, head in self._backlog.changes():
            self._shares.know(lane, head)
