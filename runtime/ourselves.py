"""How a process of ours is started anew: its command line and its environment.

Out of an archive (archive/build.py) our packages lie in a folder that Python does not know of by
itself, so it is told.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

MARK: Final = "autoglm-archive"
"""A file of this name lies beside our packages where they came out of an archive."""
_ROOT: Final = Path(__file__).parent.parent


def in_archive() -> bool:
    return (_ROOT / MARK).exists()


def command(module: str) -> list[str]:
    """Runs one of our modules, from whatever folder."""
    return [sys.executable, "-P", "-m", module]


def environment() -> dict[str, str]:
    """Ours, in which the new process finds the packages that we run, and its own children none in
    the folder they happen to start in (vLLM starts some with `python -m`).
    """
    made = {**os.environ, "PYTHONSAFEPATH": "1"}
    path = made.get("PYTHONPATH", "")
    if in_archive() and path.split(os.pathsep)[0] != str(_ROOT):
        made["PYTHONPATH"] = f"{_ROOT}{os.pathsep}{path}" if path else str(_ROOT)
    return made
