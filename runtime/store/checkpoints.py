"""Transaction bodies around answers that are not complete: kept, given with a claim, removed.

A row is of an open task, by the engine that serves today. It goes when its task ends, when an
attempt fails, for what made it fail may be in it, and when the engine is another one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from runtime.partial import Partial
from runtime.store.checkpointprotocol import SaveCheckpoints
from runtime.store.rows import execute_rows, json_numbers
from runtime.store.transaction import Transaction

_KEEP = "INSERT OR REPLACE INTO checkpoint {rows}"
_SAVE = """
INSERT OR REPLACE INTO checkpoint
WITH saved (of, attempt, body) AS ({rows}) SELECT of, body FROM saved
WHERE EXISTS (SELECT 1 FROM task WHERE task.seq = saved.of AND task.state = 'running'
              AND task.attempt = saved.attempt)
"""


def save_checkpoints(tx: Transaction, write: SaveCheckpoints) -> int:
    rows = [(each.seq, each.attempt, _text(each.partial)) for each in write.checkpoints]
    return execute_rows(tx.cx, _SAVE, rows)


def keep(tx: Transaction, partials: Sequence[tuple[int, Partial]]) -> None:
    """Of tasks that are put back in this transaction."""
    execute_rows(tx.cx, _KEEP, [(seq, _text(partial)) for seq, partial in partials])


def forget(tx: Transaction, seqs: Collection[int]) -> None:
    if seqs:
        tx.cx.execute(
            "DELETE FROM checkpoint WHERE task IN (SELECT value FROM json_each(?))",
            (json_numbers(seqs),),
        )


def forget_all(tx: Transaction) -> None:
    tx.cx.execute("DELETE FROM checkpoint")


def _text(partial: Partial) -> str:
    return msgspec.json.encode(partial).decode()
