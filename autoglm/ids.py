"""Task ids: minted by the client, sortable by time, free of collisions.

26 characters of Crockford base 32, lower case: 48 bits of milliseconds, then 80 random bits
(the ULID layout, https://github.com/ulid/spec). Within one millisecond the random part counts
up, so ids of one minter always sort in the order they were made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_BITS = 80
ID_LENGTH = 26
SHORT_LENGTH = 8
"""Of an id's end, which tells ids of one day apart: what is shown where there is little room."""


def short(id: str) -> str:
    """The end of an id; every command takes it for the id."""
    return id[-SHORT_LENGTH:]


def is_id(text: str) -> bool:
    """Whether it is made as ids are, whoever minted it."""
    return len(text) == ID_LENGTH and text.isascii() and text.isalnum()


def _random_bits(count: int) -> int:
    """As `secrets.randbits`, whose import would take a thirtieth of the time of a command."""
    return int.from_bytes(os.urandom((count + 7) // 8)) >> (-count % 8)


class Ids:
    """A minter. Time and randomness are handed in, so that a simulation mints the same ids."""

    def __init__(
        self,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        random_bits: Callable[[int], int] = _random_bits,
    ) -> None:
        self.now_ms = now_ms
        """The wall clock that ids are sorted by, Unix milliseconds."""
        self._random_bits = random_bits
        self._last = 0

    def mint(self) -> str:
        """A new id, greater than every id this minter made before."""
        fresh = (self.now_ms() << _RANDOM_BITS) | self._random_bits(_RANDOM_BITS - 1)
        self._last = max(fresh, self._last + 1)
        value, letters = self._last, [""] * ID_LENGTH
        for place in range(ID_LENGTH - 1, -1, -1):
            letters[place] = _ALPHABET[value & 31]
            value >>= 5
        return "".join(letters)
