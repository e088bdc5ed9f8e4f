"""Tasks that a person names by their ids: which of them exist within a tenant's reach."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from autoglm.types import TaskState
from runtime.store.transaction import Transaction


class Named(NamedTuple):
    known: tuple[str, ...]
    unknown: tuple[str, ...]
    """Another tenant's ids are as unknown as those that nobody has."""
    found: tuple[tuple[int, TaskState], ...]
    """The known ones' numbers and states, as they stood before anything was changed; each once."""


def find_named(tx: Transaction, ids: Iterable[str], tenant: str | None) -> Named:
    """`tenant` None: the operator's reach."""
    known: list[str] = []
    unknown: list[str] = []
    found: dict[int, TaskState] = {}
    for id in ids:
        row = tx.cx.execute(
            "SELECT seq, state FROM task WHERE id = ? AND (? IS NULL OR tenant = ?)",
            (id, tenant, tenant),
        ).fetchone()
        (known if row else unknown).append(id)
        if row:
            found[row[0]] = TaskState(row[1])
    return Named(tuple(known), tuple(unknown), tuple(found.items()))
