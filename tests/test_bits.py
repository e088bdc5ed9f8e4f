"""The set of line numbers, against a set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from autoglm.bits import Bits

numbers = st.lists(st.integers(1, 100)) | st.integers(0, 60).map(lambda n: list(range(1, n + 1)))


def bits_of(numbers: list[int]) -> Bits:
    bits = Bits()
    for number in numbers:
        bits.add(number)
    return bits


def same(bits: Bits, expected: set[int]) -> bool:
    prefix = next(n for n in range(1000) if n + 1 not in expected)
    return (
        {number for number in range(1, 200) if number in bits} == expected
        and len(bits) == len(expected)
        and bits.prefix() == prefix
    )


@given(numbers)
def test_holds_what_was_added(added: list[int]) -> None:
    assert same(bits_of(added), set(added))


@given(numbers, numbers)
def test_update_adds_all_of_another(mine: list[int], theirs: list[int]) -> None:
    bits, other = bits_of(mine), bits_of(theirs)
    bits.update(other)
    assert same(bits, {*mine, *theirs})
    assert same(other, set(theirs))


def test_a_million_lines_fit_into_125_kilobytes() -> None:
    bits = Bits()
    bits.add(1_000_000)
    assert 1_000_000 in bits
    assert bits.prefix() == 0
    assert len(bits._bytes) == 125_000  # pyright: ignore[reportPrivateUsage]
