"""The panel that `autoglm run` shows while it runs: how far, how fast, how long still, and the last
answers. A pure function of what was noted and the time.
"""

from __future__ import annotations

from collections import deque

from rich.text import Text

from autoglm.job import Answers, Progress
from autoglm.live.columns import (
    BAD,
    DIM,
    GAP,
    GOOD,
    bar,
    cell,
    fitted,
    in_ascii,
    number,
    percent,
    sparkline,
    width,
)
from autoglm.progress import Pace
from autoglm.text import in_words

ANSWERS_SHOWN = 4
CELLS_MAX = 110
_BAR_CELLS, _SPARK_CELLS = 30, 12


class JobPanel:
    def __init__(self, title: str, now: float, *, ascii_only: bool = False) -> None:
        """`now`, here and below: seconds of a steady clock."""
        self._title = title
        self._pace = Pace(now)
        self._ascii_only = ascii_only
        self._progress: Progress | None = None
        self._last: Answers = ()
        self._rates: deque[float] = deque(maxlen=_SPARK_CELLS)
        self._rated = now

    def report(self, progress: Progress) -> None:
        """Called as often as anything happens, so it only takes a note."""
        self._progress = progress

    def on_answers(self, answers: Answers) -> None:
        self._last = (*self._last, *answers)[-ANSWERS_SHOWN:]

    def picture(self, cells: int, now: float) -> Text:
        """Lines of at most `cells` minus one: some terminals wrap a line that is full."""
        inner = max(10, min(cells - 1, CELLS_MAX) - 4)
        progress = self._progress
        if progress is not None:
            self._note(progress, now)
        lines = [self._how_far(progress, inner), self._how_fast(progress, now)]
        for line, answer in self._last:
            lines.append(Text.assemble((f"{line:>7,} ", DIM), cell(answer, inner)))
        title = cell(self._title, inner - 2)
        edge = "─" * (inner - width(title) - 1)
        top = Text.assemble(("╭─ ", DIM), (title.plain, "bold"), (f" {edge}╮", DIM))
        bottom = Text(f"╰{'─' * (inner + 2)}╯", style=DIM)
        joined = Text("\n", no_wrap=True, overflow="crop").join(
            (
                top,
                *(Text.assemble(("│ ", DIM), fitted(line, inner), (" │", DIM)) for line in lines),
                bottom,
            )
        )
        return in_ascii(joined) if self._ascii_only else joined

    def _note(self, progress: Progress, now: float) -> None:
        self._pace.note(progress, now)
        if now - self._rated >= 1:
            self._rated = now
            self._rates.append(self._pace.tokens_per_s)

    def _how_far(self, progress: Progress | None, cells: int) -> Text:
        if progress is None:
            return Text("waiting for the server", style=DIM)
        done, total = progress.done, progress.total
        words = Text(f"{GAP}{done:,} of {total:,}", style="bold")
        style = BAD if progress.failed else DIM
        words.append(f"{GAP}{progress.failed:,} failed", style=f"not bold {style}")
        size = max(4, min(_BAR_CELLS, cells - width(words)))
        return bar(done / total if total else 1.0, size, GOOD) + words

    def _how_fast(self, progress: Progress | None, now: float) -> Text:
        passed = in_words(now - self._pace.began)
        if progress is None or not progress.completion_tokens:
            waits = "the server" if progress is None else "the first answer"
            return Text(f"{passed}, waiting for {waits}", style=DIM)
        words = Text(f"{number(self._pace.tokens_per_s)} tokens/s", style="bold")
        if self._rates:
            words.append(f" {sparkline(self._rates, _SPARK_CELLS)}", style="not bold cyan")
        hits = progress.cached_tokens / progress.prompt_tokens if progress.prompt_tokens else None
        if hits is not None:
            words.append(f"{GAP}prefix hits {percent(hits)}", style="not bold")
        left_s = self._pace.left_s(progress)
        left = "" if left_s is None else f", about {in_words(left_s)} left"
        return words.append(f"{GAP}{passed}{left}", style="not bold")
