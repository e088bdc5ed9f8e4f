"""What outlives the server of its engines' breakers: one that kept failing is not hammered because
its server was restarted.
"""

from __future__ import annotations

import sqlite3

from runtime.store.transaction import Transaction
from runtime.store.upkeepprotocol import FetchBreakers, KeptBreaker, RememberBreaker


def remember_breaker(tx: Transaction, write: RememberBreaker) -> None:
    kept = write.breaker
    if kept.trips:
        tx.cx.execute(
            "INSERT OR REPLACE INTO engine_breaker VALUES (?, ?, ?, ?)",
            (kept.engine, kept.what, kept.trips, kept.open_until),
        )
    else:
        tx.cx.execute("DELETE FROM engine_breaker WHERE engine = ?", (kept.engine,))


def fetch_breakers(cx: sqlite3.Connection, _query: FetchBreakers) -> tuple[KeptBreaker, ...]:
    rows = cx.execute("SELECT engine, what, trips, open_until FROM engine_breaker")
    return tuple(KeptBreaker(*row) for row in rows)
