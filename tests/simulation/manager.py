"""A service manager in the simulation: it notes what it is told, and what it would have done."""

from __future__ import annotations

from runtime.clock import Clock
from runtime.sdnotify import ALIVE, READY


class SimulatedManager:
    """runtime.sdnotify.ServiceManager."""

    def __init__(self, clock: Clock, watchdog_s: float) -> None:
        self.watchdog_s: float | None = watchdog_s
        self.told: list[str] = []
        self.found: list[str] = []
        self._clock = clock
        self._limit_s = watchdog_s
        self._heard: float | None = None
        """When it heard last that the server is alive."""

    @property
    def ready(self) -> bool:
        return READY in self.told

    @property
    def alive(self) -> int:
        """How often it was told."""
        return self.told.count(ALIVE)

    @property
    def status(self) -> str:
        """The line that it shows."""
        lines = [line for line in self.told if line.startswith("STATUS=")]
        return lines[-1].partition("=")[2] if lines else ""

    def notify(self, *lines: str) -> None:
        self.told += lines
        if ALIVE in lines:
            self.look()
            self._heard = self._clock.monotonic()

    def look(self) -> None:
        """Would it end the server now?"""
        now = self._clock.monotonic()
        if self._heard is not None and now - self._heard > self._limit_s:
            self.found.append(f"the manager heard nothing for {now - self._heard:.1f} s")
            self._heard = now
