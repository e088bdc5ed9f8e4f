"""The whole command line inside the test's process: what `autoglm` would do, and its exit code."""

from __future__ import annotations

from pathlib import Path

from actors.main import EXTRA
from autoglm import cli


def main_in(folder: Path, *argv: str) -> int:
    """Run one command, for a server that would be at `folder`."""
    try:
        return cli.main([*argv, "--data-dir", str(folder)], EXTRA)
    except SystemExit as ended:
        return int(ended.code or 0)
