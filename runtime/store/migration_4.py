"""What the step from schema 3 to 4 adds; frozen, as all steps are."""

from __future__ import annotations

MORE_4 = (
    """
CREATE TABLE checkpoint (
    task INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT
""",
)
