"""Every list pins every line, the lists agree, and what is installed is what they say.

Prints what differs and ends with 1 if anything does.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)")


def pins(text: str) -> dict[str, str]:
    """Versions by normalised name (PEP 503). Raises ValueError for a line that pins nothing."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            pin = PIN.fullmatch(line)
            if pin is None:
                raise ValueError(f"not name==version: {line}")
            found[re.sub(r"[-_.]+", "-", pin["name"]).lower()] = pin["version"]
    return found


def differences(lists: dict[str, dict[str, str]]) -> list[str]:
    """Packages for which two lists name different versions, a line each."""
    wanted: dict[str, dict[str, list[str]]] = {}
    for list_name, versions in sorted(lists.items()):
        for package, pinned in versions.items():
            wanted.setdefault(package, {}).setdefault(pinned, []).append(list_name)
    return [
        f"{package}: "
        + ", ".join(f"{pinned} in {', '.join(where)}" for pinned, where in by.items())
        for package, by in wanted.items()
        if len(by) > 1
    ]


def not_installed(pinned: dict[str, str]) -> list[str]:
    """Packages whose installed version is another, a line each; a build's `+cpu` is no matter."""
    wrong: list[str] = []
    for package, wanted in pinned.items():
        try:
            found = version(package).partition("+")[0]
        except PackageNotFoundError:
            found = "nothing"
        if found != wanted:
            wrong.append(f"{package}: {wanted} is pinned, {found} is installed")
    return wrong


def main() -> int:
    folder = Path(__file__).parent
    lists = {path.name: pins(path.read_text()) for path in sorted(folder.glob("*.lock"))}
    everything = {package: pin for pinned in lists.values() for package, pin in pinned.items()}
    wrong = differences(lists) or not_installed(everything)
    print("\n".join(wrong) or f"{len(everything)} packages are pinned and installed as pinned")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
