"""The reader: answers questions about what is committed.

Owns the reading connection, so that a long listing never holds up a commit. Accepts `Ask`, one at
a time, in order; emits nothing but answers. It keeps no state: when it dies, those whose question
it had taken are told.
"""

from __future__ import annotations

from collections import deque

from actors.messages import Ask, Refused
from autoglm.errors import AutoGLMError
from runtime.actor import Actor
from runtime.mailbox import ActorDied, Mailbox
from runtime.store.health import Health
from runtime.store.protocol import Store, StoreBlocked, StoreDamaged, StoreError

CAPACITY = 1024


class Reader(Actor[Ask]):
    def __init__(self, mailbox: Mailbox[Ask], store: Store, health: Health) -> None:
        super().__init__(mailbox)
        self._store = store
        self._health = health
        self._asked: deque[Ask] = deque()
        """Taken in this batch and not answered yet."""

    async def on_stop(self) -> None:
        for ask in self._asked:
            ask.reply.send(ActorDied("reader"))

    def handle(self, message: Ask) -> None:
        self._asked.append(message)

    async def settle(self) -> None:
        while self._asked:
            ask = self._asked[0]
            try:
                ask.reply.send(await self._store.query(ask.query))
            except StoreDamaged as error:
                self._health.damaged(error)
                ask.reply.send(Refused(error))
            except (AutoGLMError, StoreBlocked) as error:
                ask.reply.send(Refused(error))
            except StoreError as error:
                ask.reply.send(Refused(error))
                raise  # our breaker paces the next try
            self._asked.popleft()
            self.mailbox.bell.visits += 1
