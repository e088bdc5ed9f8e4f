from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from autoglm.streaming import Chunk, Stitcher

TEXT = st.text("ab", max_size=12)


def read(chunks: Iterable[Chunk], so_far: str = "") -> str:
    """What a reader who honours `reset` has in the end."""
    for chunk in chunks:
        so_far = chunk.text if chunk.reset else so_far + chunk
    return so_far


def test_a_chunk_is_a_text_that_knows_where_it_stands() -> None:
    chunk = Chunk("word", attempt=2, offset=5)
    assert (chunk + "s", chunk.text) == ("words", "word")
    assert (chunk.attempt, chunk.offset, chunk.reset) == (2, 5, False)


def test_chunks_of_one_attempt_are_given_out_as_they_come() -> None:
    stitcher = Stitcher()
    assert list(stitcher.feed(1, 0, "one ")) == ["one "]
    assert list(stitcher.feed(1, 4, "two")) == ["two"]
    assert list(stitcher.finish(1, "one two")) == []


def test_a_new_attempt_that_says_the_same_is_not_repeated() -> None:
    stitcher = Stitcher()
    read(stitcher.feed(1, 0, "one two"))
    assert list(stitcher.feed(2, 0, "one ")) == []
    [more] = stitcher.feed(2, 4, "two three")
    assert (more, more.offset, more.reset) == (" three", 7, False)


def test_a_new_attempt_that_differs_starts_over_with_one_reset() -> None:
    stitcher = Stitcher()
    read(stitcher.feed(1, 0, "one two"))
    read(stitcher.feed(2, 0, "one "))
    [anew] = stitcher.feed(2, 4, "more")
    assert (anew, anew.reset, anew.attempt, anew.offset) == ("one more", True, 2, 0)


def test_what_was_dropped_comes_with_the_answer() -> None:
    stitcher = Stitcher()
    read(stitcher.feed(1, 0, "one "))
    assert list(stitcher.feed(1, 8, "three")) == []
    assert list(stitcher.finish(1, "one two three")) == ["two three"]


def test_a_late_chunk_of_an_attempt_that_is_over_is_ignored() -> None:
    stitcher = Stitcher()
    read(stitcher.feed(2, 0, "new"))
    assert list(stitcher.feed(1, 0, "old")) == []


def test_an_answer_that_is_shorter_than_what_was_shown_starts_over() -> None:
    stitcher = Stitcher()
    read(stitcher.feed(1, 0, "one two"))
    [anew] = stitcher.finish(2, "one")
    assert (anew, anew.reset) == ("one", True)


@given(st.lists(st.tuples(TEXT, st.lists(st.booleans(), max_size=12)), min_size=1, max_size=4))
def test_whatever_is_dropped_or_tried_again_the_reader_ends_with_the_answer(
    attempts: list[tuple[str, list[bool]]],
) -> None:
    stitcher, seen = Stitcher(), ""
    for attempt, (text, arrives) in enumerate(attempts, 1):
        for offset, (letter, arrived) in enumerate(zip(text, arrives, strict=False)):
            if arrived:
                seen = read(stitcher.feed(attempt, offset, letter), seen)
    answer = attempts[-1][0]
    assert read(stitcher.finish(len(attempts), answer), seen) == answer
