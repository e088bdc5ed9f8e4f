"""What a server is made with: what of the world is handed in, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.frontdoor import Listen
from autoglm.ids import Ids
from autoglm.status import ServerStatus
from autoglm.wire import PROTOCOL_VERSION, Welcome
from model.hosted import Launch
from runtime.clock import Clock, Rng
from runtime.sdnotify import ServiceManager
from runtime.store.protocol import Store


class World(msgspec.Struct, frozen=True):
    """What differs between a machine and a simulation."""

    clock: Clock
    rng: Rng
    ids: Ids
    store: Store
    listen: Listen
    launch: Callable[[str], Launch]
    """Starts the host process of the engine so named."""
    signal: Callable[[int, int], None]
    """Sends a signal to the process so numbered."""
    manager: ServiceManager | None = None
    """Who watches over the server, and is told how it is."""


class Identity(msgspec.Struct, frozen=True):
    """What the server says of itself."""

    version: str
    pid: int
    engine: str
    model: str
    data_dir: str
    private: bool = False
    """It ends with the process that started it."""
    max_model_len: int | None = None
    """As configured."""

    def welcome(self, rid: int) -> Welcome:
        """The first reply on a connection."""
        return Welcome(
            *(rid, self.version, PROTOCOL_VERSION, self.engine, self.model),
            private=self.private,
            max_model_len=self.max_model_len,
        )

    def status(self, started_at: int, state: str, trouble: str | None) -> ServerStatus:
        """What `status` shows of the server."""
        return ServerStatus(
            version=self.version,
            pid=self.pid,
            started_at=started_at,
            state=state,
            engine=self.engine,
            model=self.model,
            data_dir=self.data_dir,
            trouble=trouble,
        )
