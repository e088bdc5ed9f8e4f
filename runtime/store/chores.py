"""Transaction bodies for what a request began and left to be done afterwards, slice by slice.

A row of `chore` is the promise that it will be done, whoever dies meanwhile.
"""

from __future__ import annotations

from runtime.store.protocol import DoChore
from runtime.store.pruning import SLICE_TASKS, Tally, remove_jobs
from runtime.store.transaction import Transaction


def do_chore(tx: Transaction, _write: DoChore) -> bool:
    room = remove_jobs(tx, SLICE_TASKS, Tally())
    if room < SLICE_TASKS:
        tx.keep_counters()
    return room == 0
