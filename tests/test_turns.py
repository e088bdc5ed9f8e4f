"""Turns by virtual token counters: shares hold, nobody saves up, nobody is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.policy.turns import SPARE, Turns

WEIGHTS = {"a": 1.0, "b": 2.0, "c": 5.0, "d": 0.5}


def turns() -> Turns:
    return Turns(lambda name: WEIGHTS.get(name, 1.0))


def wanting(*names: str) -> Turns:
    made = turns()
    for name in names:
        made.enter(name)
        made.offer(name)
    return made


def serve(turns: Turns, tokens: float) -> str:
    name = turns.first()
    assert name is not None
    turns.took_turn(name)
    turns.charge(name, tokens)
    return name


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=300))
def test_who_always_wants_gets_his_share_within_one_task_of_each(tasks: list[int]) -> None:
    """Goyal, Vin and Cheng 1996, theorem 1: |Wa/wa - Wb/wb| <= La/wa + Lb/wb."""
    made = wanting(*WEIGHTS)
    got = dict.fromkeys(WEIGHTS, 0)
    for tokens in tasks:
        got[serve(made, tokens)] += tokens
        for one, its in WEIGHTS.items():
            for other, others in WEIGHTS.items():
                gap = abs(got[one] / its - got[other] / others)
                assert gap <= 1000 / its + 1000 / others


def test_who_comes_back_gets_no_arrears_and_owes_none() -> None:
    made = wanting("a", "x")
    for _ in range(10):
        serve(made, 100)
    made.leave("x")
    for _ in range(50):
        assert serve(made, 100) == "a"
    made.enter("x")
    made.offer("x")
    assert [serve(made, 100) for _ in range(6)].count("x") == 3


def test_when_nobody_wants_anything_all_start_anew() -> None:
    made = wanting("a", "x")
    for _ in range(7):
        serve(made, 100)
    made.leave("a")
    made.leave("x")
    made.enter("a")
    made.enter("x")
    assert made.ahead("a") == made.ahead("x") == 0


def test_who_can_not_be_served_is_passed_over_and_is_first_when_he_can() -> None:
    made = wanting("a", "x")
    made.withdraw("a")
    assert [serve(made, 10) for _ in range(3)] == ["x", "x", "x"]
    made.offer("a")
    assert serve(made, 10) == "a"


def test_what_was_charged_too_much_is_given_back() -> None:
    made = wanting("a", "x")
    serve(made, 1000)
    made.charge("a", -990)
    assert [serve(made, 100) for _ in range(2)] == ["x", "a"]


def test_those_who_went_are_forgotten() -> None:
    made = wanting("a", "x")
    for number in range(10 * SPARE):
        name = f"guest {number}"
        made.enter(name)
        made.offer(name)
        while serve(made, 1) != name:
            pass
        made.leave(name)
    assert len(made._served) <= 2 * len(made) + SPARE + 1  # pyright: ignore
    assert repr(made).startswith("<Turns 2 of 2 at ")
