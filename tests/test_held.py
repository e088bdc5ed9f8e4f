"""What is held of running answers: all of the newest attempt, and never too much."""

from __future__ import annotations

from actors.held import Held
from model.engine import Progress


def test_an_answer_is_held_from_its_beginning() -> None:
    held = Held()
    held.take(Progress("t", 1, 0, "one "))
    held.take(Progress("t", 1, 4, "two"))
    assert held.of("t") == (1, "one two")
    assert held.of("other") is None


def test_another_attempt_starts_over_and_an_older_one_adds_nothing() -> None:
    held = Held()
    held.take(Progress("t", 1, 0, "first"))
    held.take(Progress("t", 2, 0, "second"))
    held.take(Progress("t", 1, 5, " late"))
    assert held.of("t") == (2, "second")
    assert held.chars == len("second")


def test_an_answer_whose_beginning_was_missed_is_not_held() -> None:
    held = Held()
    held.take(Progress("t", 1, 9, "rest"))
    assert held.of("t") is None
    held.take(Progress("t", 2, 0, "a"))
    held.take(Progress("t", 2, 5, "gap"))
    assert held.of("t") == (2, "a")


def test_what_has_ended_is_let_go_of_and_what_is_too_much_the_oldest_first() -> None:
    held = Held(chars_max=10)
    for task in "abc":
        held.take(Progress(task, 1, 0, "12345"))
    assert held.of("a") is None
    assert held.chars == 10
    held.drop("b")
    held.drop("nobody")
    assert (len(held), held.chars) == (1, 5)
    held.take(Progress("c", 1, 5, "678901"))
    assert (len(held), held.chars) == (0, 0)
