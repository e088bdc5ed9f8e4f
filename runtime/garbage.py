"""How often Python looks for cycles in our processes: seldom, because they make next to none."""

from __future__ import annotations

import gc

ALLOCATIONS = 20_000
"""Between two looks among the youngest objects. Python's 700 is a look for every ten tasks."""


def collect_seldom() -> None:
    """To be called when everything that lives long has been imported: it is not looked at again."""
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, 20, 100)
