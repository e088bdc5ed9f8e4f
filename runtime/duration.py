"""Time spans as they stand in the configuration."""

from __future__ import annotations

from autoglm.errors import UsageError
from autoglm.text import duration_s, in_words


class Duration:
    """A time span, written as `90`, `30s`, `10m`, `2h`, `30d`."""

    def __init__(self, value: float | str) -> None:
        """Raises UsageError for what is no duration."""
        self.ms = int(duration_s(value) * 1000)

    def __str__(self) -> str:
        return in_words(self.ms / 1000)

    @property
    def written(self) -> str:
        """As one writes it: `90s`, `2h`, `30d`; reads back as the same."""
        for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")):
            if self.ms % unit_ms == 0 and self.ms >= unit_ms:
                return f"{self.ms // unit_ms}{unit}"
        return f"{self.ms / 1000}s"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and self.ms == other.ms

    def __hash__(self) -> int:
        return hash(self.ms)

    def __repr__(self) -> str:
        return f"<Duration {self.ms} ms>"


def decode_duration(kind: type, value: object) -> object:
    """What msgspec does not know by itself. Raises ValueError, to which it adds the key's path."""
    assert kind is Duration, kind
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("expected a duration such as 30d, or null")
    try:
        return Duration(value)
    except UsageError as error:
        raise ValueError(str(error)) from None
