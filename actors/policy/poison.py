"""Which requests kill the engine: found by halving, with nothing to go by but a count. Pure.

A task carries the number of engine deaths it was present at (`deaths`, in the store, so that a
restart goes on where it was). From the second on it is a suspect. Suspects run on trial: apart
from everybody else, in a batch that is the smaller the more deaths its members have seen.

    deaths       2      3      4    …        so a poison is halved out of its company death by
    at most    S/2    S/4    S/8   …, 1      death, and dies of being alone with the engine

Proof that few deaths are enough, for S slots and an engine that dies of poison only:
- Each death has a poison in the engine, and each poison in it has seen one death more afterwards.
- One with 1 + log2(S) deaths runs in a batch of one, and the next death ends it. So a poison sees
  at most `deaths_max(S)` deaths, and P of them cost at most P times as many, however they come:
  together, one after the other, on several engines, and whatever restarts in between.
- Who does not kill is never in the engine alone when it dies, so never convicted; each trial ends
  with an answer or a death, so all of them come to an end.

Suspects and the others take turns: after each trial as many others as the engine has slots.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

SUSPECT_DEATHS = 2
"""A task that was present at so many engine deaths is a suspect."""


class Turn(StrEnum):
    """Who may enter the engine now."""

    OTHERS = "others"
    TRIAL = "trial"
    NOBODY = "nobody"  # the engine must be empty before the trial


def is_suspect(deaths: int) -> bool:
    return deaths >= SUSPECT_DEATHS


def trial_max(deaths: int, slots: int) -> int:
    """How many may be on trial together with a suspect that has seen so many deaths."""
    return max(1, slots >> (deaths - 1))


def trial_size(deaths: Sequence[int], slots: int) -> int:
    """How many from the head of the suspects (their deaths, in order of rank) make a trial."""
    bound = slots
    for count, each in enumerate(deaths):
        bound = min(bound, trial_max(each, slots))
        if count >= bound:
            return count
    return len(deaths)


def convicted(deaths: int, trial: int) -> bool:
    """Whether an engine's death proves that it died of this request: one with so many earlier
    `deaths` that was on trial with so many in all (0: it was not on trial).
    """
    return trial == 1 and is_suspect(deaths)


def deaths_max(slots: int) -> int:
    """The most engine deaths that one poison costs."""
    return max(SUSPECT_DEATHS, slots.bit_length()) + 1


def whose_turn(
    suspects: int, others: int, served: int, slots: int, flying: int, *, settled: bool
) -> Turn:
    """Who goes next, when `suspects` and `others` wait.

    `served` others went since the last trial, `flying` requests run, none of them on trial.
    `settled`: the suspects have waited long enough for others to come first.
    """
    if not suspects or (others and served < slots):
        return Turn.OTHERS
    if flying or not (settled or others):
        return Turn.NOBODY
    return Turn.TRIAL
