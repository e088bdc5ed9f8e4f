"""A time span in the configuration."""

from __future__ import annotations

from autoglm.text import duration_s, in_words


class Duration:
    """A time span, written as `90`, `30s`, `10m`, `2h`, `30d`."""

    def __init__(self, value: float | str) -> None:
        """Raises UsageError for what is no duration."""
        self.ms = int(duration_s(value) * 1000)

    def __str__(self) -> str:
        return in_words(self.ms / 1000)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ms == other.ms

    def __hash__(self) -> int:
        return hash(self.ms)

    def __repr__(self) -> str:
        return f"<Duration {self.ms} ms>"
