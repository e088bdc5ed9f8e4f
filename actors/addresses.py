"""Where each actor is reached: mailboxes and signals, made once, that outlive every instance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actors import batcher, drills, frontdoor, monitor, persister, reader, retention, scheduler
from actors.messages import Commit
from runtime.bell import Bell, Signal
from runtime.mailbox import Mailbox


class Addresses:
    def __init__(self, batchers: Iterable[str]) -> None:
        lanes = Bell()
        self.engine_lane: Mailbox[Commit] = Mailbox(persister.ENGINE_LANE_CAPACITY, lanes)
        self.intake: Mailbox[Commit] = Mailbox(persister.INTAKE_CAPACITY, lanes)
        self.reader: Mailbox[Any] = Mailbox(reader.CAPACITY)
        self.scheduler: Mailbox[Any] = Mailbox(scheduler.CAPACITY)
        self.batchers: dict[str, Mailbox[Any]] = {
            name: Mailbox(batcher.CAPACITY) for name in batchers
        }
        self.frontdoor: Mailbox[Any] = Mailbox(frontdoor.CAPACITY)
        self.monitor: Mailbox[Any] = Mailbox(monitor.CAPACITY)
        self.retention: Mailbox[Any] = Mailbox(retention.CAPACITY)
        self.drills: Mailbox[Any] = Mailbox(drills.CAPACITY)
        self.scheduler_missed = Signal(self.scheduler.bell)
        self.frontdoor_missed = Signal(self.frontdoor.bell)
        self.chores = Signal(self.retention.bell)

    @property
    def outlets(self) -> persister.Outlets:
        """Where the persister's news go."""
        return persister.Outlets(
            self.scheduler,
            self.scheduler_missed,
            self.frontdoor,
            self.frontdoor_missed,
            self.batchers,
            self.chores,
        )
