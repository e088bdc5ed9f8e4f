"""Ids that a person has shortened: a beginning, or an end such as `list` shows on a terminal.

Ids begin with the time, so those of one minute begin alike; their ends differ. The end is looked
for among the newest tasks alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable

from autoglm import wire
from autoglm.errors import UsageError
from autoglm.ids import ID_LENGTH
from autoglm.paths import places
from autoglm.session import Session
from autoglm.text import one_line

LEAST_CHARS = 6
"""Fewer fit some id by accident, and a name may be meant: of a queue, for instance."""
_ARGUMENTS = ("id", "ids", "task", "after", "job")
"""Where commands take ids, by the names of their arguments."""
_ALPHABET = frozenset("0123456789abcdefghjkmnpqrstvwxyz")


def expanding(
    command: Callable[[argparse.Namespace], Awaitable[int]],
) -> Callable[[argparse.Namespace], Awaitable[int]]:
    """`command`, with the ids of its arguments in full."""

    async def run(arguments: argparse.Namespace) -> int:
        await expand(arguments)
        return await command(arguments)

    return run


async def expand(arguments: argparse.Namespace) -> None:
    """Put ids in full where they are short. One that is nobody's stays: the command will say so.

    Raises UsageError for one that several tasks share.
    """
    given: dict[str, str | list[str]] = {
        name: value for name in _ARGUMENTS if (value := getattr(arguments, name, None))
    }
    parts = {
        id
        for value in given.values()
        for id in ([value] if isinstance(value, str) else value)
        if _is_short(id)
    }
    if not parts:
        return
    socket = places(arguments.socket, arguments.data_dir).socket
    full: dict[str, str] = {}
    async with Session(socket, None) as session:
        for part in parts:
            found = (await session.call(wire.FindIds(0, part.lower()), wire.IdsReply)).ids
            if len(found) > 1:
                shown = ", ".join(one_line(id, ID_LENGTH) for id in found)
                raise UsageError(f"{part} is short for several ids: {shown}; give more of it")
            if found:
                full[part] = found[0]
    for name, value in given.items():
        if isinstance(value, str):
            setattr(arguments, name, full.get(value, value))
        else:
            setattr(arguments, name, [full.get(id, id) for id in value])


def _is_short(id: str) -> bool:
    return LEAST_CHARS <= len(id) < ID_LENGTH and _ALPHABET.issuperset(id.lower())
