"""A set of line numbers, one bit each: a million lines take 125 kB."""

from __future__ import annotations


class Bits:
    """Numbers from 1. Grows as it must."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number - 1, 8)
        return place < len(self._bytes) and bool(self._bytes[place] >> bit & 1)

    @classmethod
    def up_to(cls, number: int) -> Bits:
        """All of 1 … `number`."""
        bits = cls()
        whole, rest = divmod(number, 8)
        bits._bytes = bytearray(b"\xff" * whole + bytes([(1 << rest) - 1]))
        bits._count = number
        return bits

    def copy(self) -> Bits:
        bits = Bits()
        bits._bytes, bits._count = self._bytes[:], self._count
        return bits

    def add(self, number: int) -> None:
        if number in self:
            return
        place, bit = divmod(number - 1, 8)
        self._bytes.extend(bytes(max(place + 1 - len(self._bytes), 0)))
        self._bytes[place] |= 1 << bit
        self._count += 1

    def update(self, other: Bits) -> None:
        """Add all that are in `other`."""
        size = max(len(self._bytes), len(other._bytes))
        mine, theirs = (int.from_bytes(bits._bytes, "little") for bits in (self, other))
        self._bytes = bytearray((mine | theirs).to_bytes(size, "little"))
        self._count = (mine | theirs).bit_count()

    def prefix(self) -> int:
        """The largest n for which all of 1 … n are in."""
        full = len(self._bytes) - len(self._bytes.lstrip(b"\xff"))
        number = full * 8
        while number + 1 in self:
            number += 1
        return number
