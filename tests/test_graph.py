"""The order of tasks that come after each other, for every graph; circles are found."""

from __future__ import annotations

import graphlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm.graph import IDS_SHOWN, Circle, in_order


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, tuple[str, ...]]:
    count = draw(st.integers(0, 12))
    ids = [f"t{number}" for number in range(count)]
    names = st.sampled_from([*ids, "unknown"]) if ids else st.just("unknown")
    return {id: tuple(draw(st.lists(names, max_size=3))) for id in ids}


@given(graphs())
def test_each_stands_behind_those_it_comes_after_or_there_is_a_circle(
    after: dict[str, tuple[str, ...]],
) -> None:
    inner = {id: [each for each in ids if each in after] for id, ids in after.items()}
    order, circle = order_of(after)
    if circle:
        with pytest.raises(graphlib.CycleError):
            graphlib.TopologicalSorter(inner).prepare()
        assert len(set(circle)) == len(circle)
        for id, next_id in zip(circle, (*circle[1:], circle[0]), strict=True):
            assert next_id in after[id]
        return
    graphlib.TopologicalSorter(inner).prepare()
    assert sorted(order) == sorted(after)
    place = {id: number for number, id in enumerate(order)}
    assert all(place[each] < place[id] for id, ids in inner.items() for each in ids)


def order_of(after: dict[str, tuple[str, ...]]) -> tuple[list[str], tuple[str, ...]]:
    try:
        return in_order(after), ()
    except Circle as circle:
        return [], circle.ids


@given(graphs())
def test_who_stands_in_order_already_stays_where_he_is(after: dict[str, tuple[str, ...]]) -> None:
    before: list[str] = []
    behind: dict[str, tuple[str, ...]] = {}
    for id, ids in after.items():
        behind[id] = tuple(each for each in ids if each in before)
        before.append(id)
    assert in_order(behind) == before


def test_a_task_that_waits_for_itself_is_a_circle() -> None:
    with pytest.raises(Circle, match="a after a") as caught:
        in_order({"b": (), "a": ("b", "a")})
    assert caught.value.ids == ("a",)


def test_a_long_circle_is_told_in_one_short_line() -> None:
    ids = [f"t{number}" for number in range(4096)]
    after = {id: (ids[number - 1],) for number, id in enumerate(ids)}
    with pytest.raises(Circle) as caught:
        in_order(after)
    assert len(caught.value.ids) == 4096
    assert str(caught.value).count(" after ") == IDS_SHOWN + 1
