"""`autoglm drill`: rehearse a failure on this installation, and see what becomes of the work."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import NamedTuple

from autoglm import argtypes
from autoglm import drill as d
from autoglm.client import Client
from autoglm.drill import DrillReport
from autoglm.drills import FOR_S, TIMEOUT_S, Progress, Report
from autoglm.paint import Paint, paint_for
from autoglm.paths import places
from autoglm.text import in_words, one_line
from autoglm.types import to_json

SUMMARY = "break a part on purpose, see what becomes of the work"
EXAMPLES = """\
The server must allow it: autoglm serve --set drills=true (or drills: true in its configuration).
A drill goes on beside other work and hands in a few small tasks of its own, of the tenant "drill".

  autoglm drill kill-engine                     kill -9 of the engine's process
  autoglm drill hang-engine engine-2            stop it, until engine.watchdog_s notices
  autoglm drill kill-actor scheduler            any actor that `autoglm status` shows
  autoglm drill slow-disk 200 --for 30s         each commit takes 200 ms longer
  autoglm drill fill-disk --for 10s             the store may not grow: SQLITE_FULL

Exit code 0: nothing was lost and all of it works again. 1: not so. 3: it was refused.
"""
_COLUMN = 12


class Action(NamedTuple):
    """`autoglm drill NAME`."""

    name: str
    summary: str
    options: Callable[[argparse.ArgumentParser], None]

    @property
    def run(self) -> Callable[[argparse.Namespace], Awaitable[int]]:
        return drill


async def drill(arguments: argparse.Namespace) -> int:
    socket = places(arguments.socket, arguments.data_dir).socket
    async with Client(socket, tenant=None) as client:
        with _shown() as report:
            found = await client.drill(
                arguments.kind,
                arguments.target,
                slow_ms=arguments.slow_ms,
                for_s=arguments.for_s,
                timeout=arguments.timeout,
                report=report,
            )
    if arguments.json:
        sys.stdout.write(to_json(found).decode() + "\n")
    else:
        sys.stdout.write("\n".join(describe(found, paint_for(sys.stdout))) + "\n")
    return 0 if found.ok else 1


def describe(report: DrillReport, paint: Paint) -> list[str]:
    """The report as aligned lines, the verdict last."""
    pids = [str(pid) for pid in (report.pid, report.new_pid) if pid is not None]
    where = f" (pid {', now '.join(pids)})" if pids else ""
    lost = f"{report.lost} of {report.open_before} open before and {report.accepted} accepted since"
    refused = ", ".join(f"{one_line(code)} {count}" for code, count in report.refused.items())
    accepted = report.submits - sum(report.refused.values())
    slowest = f", the slowest in {report.slowest_submit_s:.3f} s" if accepted else ""
    still = f", {report.put_back_open} of them not answered yet" if report.put_back_open else ""
    facts: list[tuple[str, str, str | None]] = [
        ("drill", f"{report.kind} of {one_line(report.target)}{where}", None),
        ("by", one_line(report.by), None),
        ("noticed", _after(report.noticed_s, "it was never down"), None),
        *([("lifted", one_line(report.lifted), None)] if report.lifted else []),
        ("up again", _after(report.up_s, "not yet"), None if report.up_s is not None else "red"),
        ("answered", _after(report.answered_s, "nothing yet"), None),
        ("lost", lost, "red" if report.lost else "green"),
        ("twice", f"{report.recorded_twice} recorded", "red" if report.recorded_twice else "green"),
        ("run again", f"{report.put_back} tasks, uncharged{still}", None),
        ("charged", f"{report.charged} failures", "yellow" if report.charged else "green"),
        ("submits", f"{accepted} accepted{slowest}; {sum(report.refused.values())} refused", None),
        *([("refused", refused, "yellow")] if refused else []),
    ]
    lines = [f"{paint(name.ljust(_COLUMN), 'bold')}{paint(what, hue)}" for name, what, hue in facts]
    missing = [paint(f"not back: {one_line(part)}", "red") for part in report.not_back]
    verdict = paint("recovered", "green") if report.ok else paint("NOT RECOVERED", "red")
    return [*lines, *missing, verdict]


def _after(seconds: float | None, never: str) -> str:
    return never if seconds is None else f"after {seconds:.3f} s"


@contextmanager
def _shown() -> Generator[Report]:
    """How far it is, on stderr: a line that moves on a terminal, else one for each step."""
    if not sys.stderr.isatty():
        last = ""

        def tell(progress: Progress) -> None:
            nonlocal last
            if progress.doing != last:
                last = progress.doing
                print(f"autoglm: {one_line(last)}", file=sys.stderr, flush=True)

        yield tell
        return
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.markup import escape  # noqa: PLC0415

    with Console(stderr=True).status("looking at the store") as status:

        def show(progress: Progress) -> None:
            counts = f"{progress.submits} submits, {progress.refused} refused"
            status.update(escape(f"{one_line(progress.doing)} · {counts}"))

        yield show


# ── what may be typed ────────────────────────────────────────────────────────────────────────────


def _common(parser: argparse.ArgumentParser, kind: str) -> None:
    parser.set_defaults(kind=kind, target=None, slow_ms=0, for_s=FOR_S)
    parser.add_argument(
        "--timeout",
        type=argtypes.duration,
        default=TIMEOUT_S,
        metavar="2m",
        help="when to give up waiting for what is broken to come back"
        f" (default {in_words(TIMEOUT_S)})",
    )


def _engine(kind: str) -> Callable[[argparse.ArgumentParser], None]:
    def options(parser: argparse.ArgumentParser) -> None:
        _common(parser, kind)
        parser.add_argument(
            "target", metavar="NAME", nargs="?", help="an engine (default: the first)"
        )

    return options


def _actor(parser: argparse.ArgumentParser) -> None:
    _common(parser, d.KILL_ACTOR)
    parser.add_argument("target", metavar="NAME", help="as `autoglm status` shows it")


def _disk(kind: str) -> Callable[[argparse.ArgumentParser], None]:
    def options(parser: argparse.ArgumentParser) -> None:
        _common(parser, kind)
        if kind == d.SLOW_DISK:
            parser.add_argument(
                "slow_ms", metavar="MS", type=argtypes.count, help="milliseconds more each commit"
            )
        parser.add_argument(
            "--for",
            dest="for_s",
            type=argtypes.duration,
            default=FOR_S,
            metavar="10s",
            help=f"how long it lasts (default {in_words(FOR_S)})",
        )

    return options


ACTIONS = (
    Action(d.KILL_ENGINE, "kill an engine's process, as the kernel would", _engine(d.KILL_ENGINE)),
    Action(d.HANG_ENGINE, "stop an engine's process until it is found", _engine(d.HANG_ENGINE)),
    Action(d.KILL_ACTOR, "have an actor die in the middle of its work", _actor),
    Action(d.SLOW_DISK, "make each commit slower for a time", _disk(d.SLOW_DISK)),
    Action(d.FILL_DISK, "let the store grow no more for a time", _disk(d.FILL_DISK)),
)
