"""How a job is shown: a bar on a terminal, a line now and then elsewhere. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

import anyio

from autoglm.job import Progress

PLAIN_EVERY_S = 10.0

Report = Callable[[Progress], None]


@contextmanager
def shown_progress(now_s: Callable[[], float] = anyio.current_time) -> Generator[Report]:
    """What to hand each `Progress` to while the job runs."""
    if sys.stderr.isatty():
        yield from _bar(now_s)
    else:
        yield _plain(now_s)


def summary(progress: Progress, seconds: float, errors: str) -> str:
    """The job in one line, when it is over."""
    parts = [f"{progress.answered} answered"]
    if progress.failed:
        parts.append(f"{progress.failed} failed (see {errors})")
    tokens = progress.completion_tokens
    rate = tokens / seconds if seconds > 0 else 0.0
    return f"{', '.join(parts)}; {tokens} tokens in {seconds:.1f} s, {rate:.1f} tokens/s"


def _plain(now_s: Callable[[], float]) -> Report:
    began = last = now_s()

    def report(progress: Progress) -> None:
        nonlocal last
        now = now_s()
        if now - last >= PLAIN_EVERY_S:
            last = now
            rate = progress.completion_tokens / (now - began)
            print(
                f"autoglm: {progress.done} of {progress.total} done, {progress.failed} failed,"
                f" {rate:.1f} tokens/s",
                file=sys.stderr,
                flush=True,
            )

    return report


def _bar(now_s: Callable[[], float]) -> Generator[Report]:
    from rich import progress as rich  # noqa: PLC0415 - slow to import
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("[red]{task.fields[failed]} failed"),
        rich.TextColumn("{task.fields[rate]:.1f} tokens/s"),
        rich.TimeRemainingColumn(),
    )
    began = now_s()
    with rich.Progress(*columns, console=Console(stderr=True), get_time=now_s) as bar:
        task = bar.add_task("loading the model", total=None, failed=0, rate=0.0)

        def report(progress: Progress) -> None:
            seconds = now_s() - began
            bar.update(
                task,
                description="answering" if progress.completion_tokens else "loading the model",
                total=progress.total,
                completed=progress.done,
                failed=progress.failed,
                rate=progress.completion_tokens / seconds if seconds > 0 else 0.0,
            )

        yield report
