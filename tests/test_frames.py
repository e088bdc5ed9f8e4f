"""Frames between the server and an engine host: what is too much for one goes in several."""

from __future__ import annotations

import pytest

from model.engine import Completion, EngineLoad, EngineRequest, Progress
from model.frames import (
    Finished,
    Generate,
    Reading,
    Texts,
    decode_from_host,
    decode_to_host,
    encode_in_parts,
)

LIMIT = 1000


def request(number: int, size: int) -> EngineRequest:
    return EngineRequest(f"task-{number}", 1, prompt="x" * size)


@pytest.mark.parametrize("sizes", [[10] * 300, [400, 10, 999, 10, 10, 500], [300] * 7])
def test_parts_say_the_same_in_the_same_order_within_the_bound(sizes: list[int]) -> None:
    requests = tuple(request(number, size) for number, size in enumerate(sizes))
    said: list[EngineRequest] = []
    for body in encode_in_parts(Generate(requests), LIMIT):
        part = decode_to_host.decode(body)
        assert isinstance(part, Generate)
        assert len(body) <= LIMIT or len(part.requests) == 1
        said += part.requests
    assert tuple(said) == requests


def test_what_fits_goes_in_one_frame() -> None:
    completions = tuple(Completion(f"task-{number}", 1, text="x") for number in range(3))
    (body,) = encode_in_parts(Finished(completions))
    assert decode_from_host.decode(body) == Finished(completions)


def test_a_single_item_is_never_divided() -> None:
    assert len(list(encode_in_parts(Generate((request(1, 5000),)), LIMIT))) == 1
    assert len(list(encode_in_parts(Reading(EngineLoad()), 1))) == 1


def test_chunks_are_divided_too() -> None:
    pieces = tuple(Progress("task", 1, at, "word") for at in range(0, 4000, 4))
    parts = [decode_from_host.decode(body) for body in encode_in_parts(Texts(pieces), LIMIT)]
    assert len(parts) > 1
    assert all(isinstance(part, Texts) for part in parts)
