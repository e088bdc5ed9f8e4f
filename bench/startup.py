"""How soon a command is there: `autoglm status`, installed and out of the archive.

Against `python -c pass`, in turns. Wall-clock time is what a person waits for and what the floor is
held by; processor time is the same where others share the machine.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench import report
from bench.report import Figure, ratio, turns
from tests.system import real
from tests.system.real import INSTANT, Server, environment

STATUS_S_MAX: Final = 0.15
ROUNDS: Final = 40
ROUNDS_QUICK: Final = 3
NOTHING: Final = "python -c pass"
NO_SERVER: Final = 3


def timed(command: Sequence[str], code: int) -> Callable[[], tuple[float, float]]:
    """Runs it; seconds by the clock, and of the processor."""

    def run() -> tuple[float, float]:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=False
        )
        took = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == code, done.stderr.decode()
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return took, spent

    return run


def main() -> int:
    arguments = report.options("startup", __doc__).parse_args()
    state = report.conditions(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = folder / "autoglm"
        build = Path(__file__).parent.parent / "archive" / "build.py"
        subprocess.run([sys.executable, "-P", build, archive], check=True, stdout=sys.stderr)
        commands = {"installed": real.AUTOGLM, "archive": [sys.executable, str(archive)]}
        with Server(folder / "data", *INSTANT):
            legs = {NOTHING: timed([sys.executable, "-c", "pass"], 0)}
            for how, command in commands.items():
                for data, what, code in (("none", "no server", NO_SERVER), ("data", "server", 0)):
                    words = [*command, "status", "--data-dir", str(folder / data)]
                    legs[f"status, {how}, {what}"] = timed(words, code)
            for run in legs.values():
                run()  # the archive unpacks, the disk is read
            rounds = ROUNDS_QUICK if arguments.quick else ROUNDS
            found = turns(rounds, legs)
    wall = {
        name: Figure(
            name,
            "s",
            [took for took, _ in samples],
            floor=STATUS_S_MAX if "installed" in name else None,
            less=True,
        )
        for name, samples in found.items()
    }
    spent = [
        Figure(f"{name}: processor time", "s", [each for _, each in samples], less=True)
        for name, samples in found.items()
    ]
    ratios = [
        ratio(each, wall[NOTHING], less=True) for name, each in wall.items() if name != NOTHING
    ]
    return report.finish(arguments.output, state, [*wall.values(), *spent, *ratios], {})


if __name__ == "__main__":
    sys.exit(main())
