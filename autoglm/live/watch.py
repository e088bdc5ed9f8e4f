"""What has been seen of a server: its last status, the rates before it, and whether it is there."""

from __future__ import annotations

from collections import defaultdict, deque

import anyio
import msgspec

from autoglm.client import Client
from autoglm.errors import ServerError
from autoglm.ids import Ids
from autoglm.live.view import HISTORY_SAMPLES, View
from autoglm.show import all_states
from autoglm.status import Status
from autoglm.text import in_words

SILENT_S = 3.0
"""A server that took the question and has not answered by then counts as away."""
BACK_S = 10.0
"""How long it is said that it is back."""


class Watch:
    """What has been seen, as a `View` at any time. The server may be restarted under it."""

    def __init__(self, client: Client, ids: Ids | None = None) -> None:
        self._client = client
        self._now_ms = (ids or Ids()).now_ms
        self._history: defaultdict[str, deque[float]] = defaultdict(_samples)
        self._seen: View | None = None
        """The view when the server last answered."""
        self._gone_ms: int | None = None
        """Since when it has not answered."""
        self._back = ""
        self._back_ms = 0

    async def first(self) -> View:
        """Raises ServerError when there is no answer."""
        return self._note(await self._client.status())

    async def look(self) -> View:
        """The view of now; of the last answer, with the reason, while there is none."""
        try:
            with anyio.fail_after(SILENT_S):
                return self._note(await self._client.status())
        except TimeoutError:
            return self._away("the server is silent")
        except ServerError as error:
            return self._away(str(error))

    def _note(self, status: Status) -> View:
        now_ms = self._now_ms()
        for engine in status.engines:
            self._history[engine.id].append(engine.tokens_per_s)
        self._note_return(status, now_ms)
        history = {id: tuple(samples) for id, samples in self._history.items()}
        back = self._back if now_ms - self._back_ms < BACK_S * 1000 else ""
        self._seen = View(all_states(status), history, now_ms, back=back)
        return self._seen

    def _note_return(self, status: Status, now_ms: int) -> None:
        seen, gone_ms, self._gone_ms = self._seen, self._gone_ms, None
        if seen is None or (gone_ms is None and seen.status.server.pid == status.server.pid):
            return
        again = seen.status.server.pid != status.server.pid
        what = f"the server was restarted (pid {status.server.pid})" if again else "it is back"
        away = f" after {in_words((now_ms - gone_ms) / 1000)} away" if gone_ms else ""
        self._back, self._back_ms = f"connected again: {what}{away}", now_ms

    def _away(self, why: str) -> View:
        seen, now_ms = self._seen, self._now_ms()
        assert seen is not None, "the first look decides whether there is anything to watch"
        self._gone_ms = seen.now_ms if self._gone_ms is None else self._gone_ms
        for samples in self._history.values():
            samples.append(0.0)
        since = in_words((now_ms - seen.now_ms) / 1000)
        away = f"away for {since}, trying again every second: {why}"
        history = {id: tuple(samples) for id, samples in self._history.items()}
        return msgspec.structs.replace(seen, history=history, away=away, back="")


def _samples() -> deque[float]:
    return deque(maxlen=HISTORY_SAMPLES)
