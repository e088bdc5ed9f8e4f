"""How a job is shown: a panel on a terminal, a line now and then elsewhere. All of it on stderr.

    ╭─ questions.jsonl → answers.jsonl ─────────────────────────╮
    │ ███████████████░░░░░░░░░░░░░  1,234 of 2,000   3 failed    │
    │ 992 tokens/s ▅▆▇█▇▇  prefix hits 42%  12s, about 8.0s left │
    │ 1233  The capital of France is Paris.                      │
    ╰────────────────────────────────────────────────────────────╯

The job only notes where it is; the panel looks four times a second, and is painted by a thread.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from autoglm.job import Answers, Progress, Report
from autoglm.text import in_words

if TYPE_CHECKING:
    from rich.console import RenderableType

PLAIN_EVERY_S = 10.0
PAINTS_PER_S = 4
WINDOW_S = 30.0
"""What the rates that are shown are taken over."""

Watcher = tuple[Report, Callable[[Answers], None]]
"""Who is told how far a job is, and some of its answers."""


@contextmanager
def shown_progress(
    source: Path, target: Path, now_s: Callable[[], float] = anyio.current_time
) -> Generator[Watcher]:
    """What to tell while the job from `source` to `target` runs."""
    if sys.stderr.isatty():
        yield from _panel(f"{source.name} → {target.name}")
    else:
        yield _plain(now_s), lambda _: None


def tell_plainly(words: str) -> None:
    """A line where no panel will show it: stderr is no terminal."""
    if not sys.stderr.isatty():
        print(f"autoglm: {words}", file=sys.stderr, flush=True)


def summary(progress: Progress, seconds: float, errors: str) -> str:
    """The job in one line, when it is over."""
    parts = [f"{progress.answered} answered"]
    if progress.failed:
        parts.append(f"{progress.failed} failed (see {errors})")
    tokens = progress.completion_tokens
    rate = tokens / seconds if seconds > 0 else 0.0
    return f"{', '.join(parts)}; {tokens} tokens in {seconds:.1f} s, {rate:.1f} tokens/s"


class Pace:
    """How fast a job goes, of what was noted over the last `WINDOW_S` seconds."""

    def __init__(self, now: float) -> None:
        self.began = now
        self._noted: deque[tuple[float, int, int]] = deque([(now, 0, 0)])
        self.noted = False

    def note(self, progress: Progress, now: float) -> None:
        """Seconds may be of any steady clock. What was done before the first note is no work."""
        if not self.noted:
            self.noted = True
            self._noted = deque([(now, progress.done, progress.completion_tokens)])
        self._noted.append((now, progress.done, progress.completion_tokens))
        while len(self._noted) > 2 and self._noted[1][0] <= now - WINDOW_S:
            self._noted.popleft()

    @property
    def tokens_per_s(self) -> float:
        return self._per_s(2)

    def left_s(self, progress: Progress) -> float | None:
        """Until all is done, if it goes on like this; None: nothing is known yet."""
        rate = self._per_s(1)
        return max(0, progress.total - progress.done) / rate if rate > 0 else None

    def _per_s(self, which: int) -> float:
        first, last = self._noted[0], self._noted[-1]
        seconds = last[0] - first[0]
        return (last[which] - first[which]) / seconds if seconds > 0 else 0.0


def _plain(now_s: Callable[[], float]) -> Report:
    pace = Pace(now_s())
    told_s = pace.began

    def report(progress: Progress) -> None:
        nonlocal told_s
        now = now_s()
        if not pace.noted:
            pace.note(progress, now)
            tell_plainly(f"{progress.done} of {progress.total} done so far, waiting for answers")
        if now - told_s < PLAIN_EVERY_S:
            return
        told_s = now
        pace.note(progress, now)
        left_s = pace.left_s(progress)
        left = "" if left_s is None else f", about {in_words(left_s)} left"
        rate = progress.completion_tokens / (now - pace.began)
        print(
            f"autoglm: {progress.done} of {progress.total} done, {progress.failed} failed,"
            f" {rate:.1f} tokens/s{left}",
            file=sys.stderr,
            flush=True,
        )

    return report


def _panel(title: str) -> Generator[Watcher]:
    from rich.console import Console  # noqa: PLC0415 - slow to import
    from rich.live import Live  # noqa: PLC0415

    from autoglm.live.job import JobPanel  # noqa: PLC0415

    console = Console(stderr=True, highlight=False)
    panel = JobPanel(title, console.get_time(), ascii_only=console.options.ascii_only)

    def picture() -> RenderableType:
        return panel.picture(console.width, console.get_time())

    with Live(console=console, get_renderable=picture, refresh_per_second=PAINTS_PER_S):
        yield panel.report, panel.on_answers
