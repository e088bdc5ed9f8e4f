"""Tasks that come after others: how people tangle them, and what must hold of them afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import msgspec

from actors.policy.lengths import SPAN_MS_MAX
from autoglm.ids import Ids
from autoglm.types import TaskSpec, TaskState

HOUR_MS = 3_600_000
"""What one level of priority is worth."""


def tangled(rng: Random, specs: Sequence[TaskSpec], earlier: Sequence[str]) -> list[TaskSpec]:
    """The tasks, each after some of the others, in any order and without a circle. Those that run
    whatever happens may come after `earlier` ones too.
    """
    found: list[TaskSpec] = []
    for spec in specs:
        ids = [each.id for each in found]
        after = rng.sample(ids, min(len(ids), rng.choice([0, 1, 1, 2])))
        choice = rng.choice(["cancel", "run"])
        if choice == "run" and rng.random() < 0.7:
            after += rng.sample(earlier, min(len(earlier), rng.choice([1, 3])))
        found.append(msgspec.structs.replace(spec, after=tuple(after), after_failure=choice))
    rng.shuffle(found)
    return found


def spoiled(rng: Random, specs: Sequence[TaskSpec], ids: Ids) -> list[TaskSpec]:
    """The same under other ids, and no server takes it: one waits for what is not there, or a task
    waits for another that waits for it.
    """
    names = {spec.id: ids.mint() for spec in specs}
    copies = [
        msgspec.structs.replace(
            spec, id=names[spec.id], key=None, after=tuple(names.get(id, id) for id in spec.after)
        )
        for spec in specs
    ]
    place = rng.randrange(len(copies))
    wrong = ids.mint() if rng.random() < 0.5 else names[specs[place].id]
    spec = copies[place]
    copies[place] = msgspec.structs.replace(spec, after=(*spec.after, wrong))
    return copies


class _Life(NamedTuple):
    """A task's events, by number; None: there was none."""

    first: int
    blocked: bool
    """Whether it began so."""
    start: int | None
    ends: list[tuple[int, TaskState]]

    def first_end(self) -> float:
        return self.ends[0][0] if self.ends else float("inf")


def wrong_with_graphs(
    cx: sqlite3.Connection,
    after: dict[str, tuple[str, ...]],
    run: set[str],
) -> Iterator[str]:
    """Nobody starts before all he waits for have ended as they must; who waits for what failed is
    cancelled, but for those who `run`; who waits for nothing is not blocked.
    """
    lives = _lives(cx)
    for id, ups in after.items():
        life = lives.get(id)
        upstream = [lives[up] for up in ups if up in lives]
        if life is None:
            continue
        unfinished = [up for up in upstream if not any(at < life.first for at, _ in up.ends)]
        if life.blocked and not upstream:
            yield f"{id} was blocked and waits for nothing"
        if not life.blocked and unfinished:
            yield f"{id} was not blocked, and waits for what had not ended"
        for up in unfinished:
            states = [state for at, state in up.ends if life.start is None or at < life.start]
            if life.start is not None and not states:
                yield f"{id} started before what it waits for had ended"
            if id in run or not up.ends or up.ends[0][1] is TaskState.SUCCEEDED:
                continue
            if life.start is not None:
                yield f"{id} started, and what it waits for is {up.ends[0][1]}"
            if life.ends and life.ends[-1][1] not in (TaskState.CANCELLED, TaskState.EXPIRED):
                yield f"{id} is {life.ends[-1][1]}, and what it waits for {up.ends[0][1]}"


def wrong_with_urgency(
    cx: sqlite3.Connection, after: dict[str, tuple[str, ...]], policy: str, *, sliced: bool
) -> Iterator[str]:
    """Ranks only improve, by no more than those that wait, and by all of that unless it is done in
    slices. Where somebody edited priorities only the first can be told from what is left.
    """
    lives = _lives(cx)
    level_ms = 0 if policy == "fifo" else HOUR_MS
    boost_ms = SPAN_MS_MAX if policy == "mlfq" else 0
    (edits,) = cx.execute("SELECT count(*) FROM event WHERE from_state = to_state").fetchone()
    own: dict[str, tuple[int, int]] = {}
    goes_by: dict[str, tuple[int, int]] = {}
    for id, created_at, priority, rank, inherited in cx.execute(
        "SELECT id, created_at, priority, rank, inherited FROM task"
    ):
        own[id] = (created_at + priority * level_ms, priority)
        goes_by[id] = (rank, priority if inherited is None else inherited)
    best = dict(own)
    for _ in range(len(after)):
        changed = False
        for id, ups in after.items():
            for up in ups:
                if id in best and up in best:
                    ours, theirs = best[id], best[up]
                    better = (min(ours[0], theirs[0]), min(ours[1], theirs[1]))
                    changed |= better != theirs
                    best[up] = better
        if not changed:
            break
    for id, (rank, priority) in goes_by.items():
        if rank > own[id][0] or priority > own[id][1]:
            yield f"{id} goes by {rank}, {priority}, which is worse than its own {own[id]}"
        if not edits and (rank + boost_ms < best[id][0] or priority < best[id][1]):
            yield f"{id} goes by {rank}, {priority}, better than all that wait for it: {best[id]}"
    for id, ups in after.items() if not (sliced or edits) else ():
        if id in lives:
            yield from _not_handed_on(id, ups, after, lives, own, goes_by)


def _not_handed_on(
    id: str,
    ups: tuple[str, ...],
    after: dict[str, tuple[str, ...]],
    lives: dict[str, _Life],
    own: dict[str, tuple[int, int]],
    goes_by: dict[str, tuple[int, int]],
) -> Iterator[str]:
    """What was open above `id` when it came is as urgent as that."""
    came, seen, walk = lives[id].first, set[str](), list(ups)
    while walk:
        up = walk.pop()
        if up in seen or up not in lives or lives[up].first_end() < came:
            continue
        seen.add(up)
        walk += after.get(up, ())
        if goes_by[up][0] > own[id][0] or goes_by[up][1] > own[id][1]:
            yield f"{up} goes by {goes_by[up]}, and {id}, which waits for it, by {own[id]}"


def _lives(cx: sqlite3.Connection) -> dict[str, _Life]:
    lives: dict[str, _Life] = {}
    for number, id, left, reached in cx.execute(
        "SELECT e.seq, t.id, e.from_state, e.to_state FROM event e JOIN task t ON t.seq = e.task"
        " ORDER BY e.seq"
    ):
        state = TaskState(reached)
        life = lives.get(id)
        if life is None:
            life = lives[id] = _Life(number, state is TaskState.BLOCKED, None, [])
        starts = state is TaskState.RUNNING or (left, state) == ("pending", TaskState.SUCCEEDED)
        if starts and life.start is None:
            life = lives[id] = life._replace(start=number)
        if state.ended:
            life.ends.append((number, state))
    return lives
