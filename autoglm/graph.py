"""Tasks that come after others: the order they can be stored in, and circles. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import Literal

AfterFailure = Literal["cancel", "run"]
"""What becomes of a task when one that it waits for ends without success: it is cancelled too, or
runs once all of them have ended, however they did.
"""
NOT_STORED = "refused_together"
"""The error of a task that was refused because another of the same submit was."""
IDS_SHOWN = 10
"""Of a circle, in what is said of it."""


class Circle(Exception):
    """Tasks that wait for each other; `ids` has each once, each waits for the next, and the last
    for the first.
    """

    def __init__(self, ids: tuple[str, ...]) -> None:
        self.ids = ids
        shown = [*ids[:IDS_SHOWN], *(["…"] if len(ids) > IDS_SHOWN else []), ids[0]]
        super().__init__(f"after: a circle, {' after '.join(shown)}")


def in_order(after: Mapping[str, Iterable[str]]) -> list[str]:
    """The keys, each behind those of them that it comes after, and otherwise as they stand.

    What is no key is passed over. Raises Circle, in time that grows with the names in `after`.
    """
    places = {id: place for place, id in enumerate(after)}
    upstream = {id: {each for each in ids if each in places} for id, ids in after.items()}
    behind: dict[str, list[str]] = {}
    for id, ids in upstream.items():
        for each in ids:
            behind.setdefault(each, []).append(id)
    missing = {id: len(ids) for id, ids in upstream.items()}
    ready = [places[id] for id, count in missing.items() if not count]
    ids, found = list(after), list[str]()
    while ready:
        id = ids[heapq.heappop(ready)]
        found.append(id)
        del missing[id]
        for each in behind.get(id, ()):
            missing[each] -= 1
            if not missing[each]:
                heapq.heappush(ready, places[each])
    if missing:
        raise Circle(_circle(missing.keys(), upstream))
    return found


def _circle(stuck: Iterable[str], upstream: Mapping[str, set[str]]) -> tuple[str, ...]:
    """A circle among `stuck`, each of which waits for another of them."""
    left = dict.fromkeys(stuck)
    walked: dict[str, int] = {}
    id = next(iter(left))
    while id not in walked:
        walked[id] = len(walked)
        id = min(each for each in upstream[id] if each in left)
    return tuple(walked)[walked[id] :]
