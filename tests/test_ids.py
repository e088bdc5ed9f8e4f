"""Task ids: sortable, never twice, whatever the clock does."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from autoglm.ids import ID_LENGTH, Ids, is_id

CROCKFORD = set("0123456789abcdefghjkmnpqrstvwxyz")


def all_ones(bits: int) -> int:
    return 2**bits - 1


def no_bits(bits: int) -> int:
    return 0


def ids_at(*moments_ms: int, bits: Callable[[int], int] = no_bits) -> list[str]:
    moments = iter(moments_ms)
    minter = Ids(lambda: next(moments), bits)
    return [minter.mint() for _ in moments_ms]


@given(st.lists(st.integers(0, 2**48 - 1), max_size=30), st.sampled_from([no_bits, all_ones]))
def test_ids_rise_even_when_the_clock_stands_or_goes_back(
    moments_ms: list[int], bits: Callable[[int], int]
) -> None:
    ids = ids_at(*moments_ms, bits=bits)
    assert ids == sorted(set(ids))


def test_an_id_is_26_letters_that_cannot_be_mistaken_for_one_another() -> None:
    minter = Ids()
    for _ in range(100):
        id = minter.mint()
        assert len(id) == ID_LENGTH
        assert set(id) <= CROCKFORD


def test_ids_of_different_minters_sort_by_time() -> None:
    [earlier] = ids_at(1000, bits=all_ones)
    [later] = ids_at(1001)
    assert earlier < later


def test_minters_that_start_in_the_same_millisecond_do_not_meet() -> None:
    assert len({Ids(lambda: 1000).mint() for _ in range(1000)}) == 1000


def test_the_layout_is_that_of_a_ulid() -> None:
    [id] = ids_at(1_469_918_176_385)  # the example of the ULID specification
    assert id.startswith("01aryz6s41")


def test_letters_of_other_alphabets_make_no_id() -> None:
    assert is_id(Ids().mint())
    assert not is_id("é" * ID_LENGTH)
    assert not is_id("٣" * ID_LENGTH)
