"""What a job reads and where it writes, whatever its tasks are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, Self

from autoglm import wire
from autoglm.batchfile import LineParser
from autoglm.bits import Bits
from autoglm.ids import Ids
from autoglm.inputfile import InputFile, Survey, survey
from autoglm.resultfile import Results


class JobResults(Protocol):
    """Where what became of the lines is written."""

    answered: int
    failed: int

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def clear(self) -> None: ...
    def begin(self) -> None: ...
    def take_up(self, job: str, blank: Bits, /) -> Bits: ...
    def record(self, job: str, lines: Sequence[wire.JobLineEnded], model: str, /) -> None: ...
    def finish(self) -> None: ...


class JobInput(Protocol):
    """What the tasks of a job are made of."""

    path: Path
    about: bytes
    """What of its options changes the answers."""

    def survey(self) -> Survey: ...

    def lines(
        self, source: InputFile, job: str, ids: Ids, after: int
    ) -> Iterator[tuple[wire.JobLine, int]]:
        """Those after line `after`, each with about how many bytes it takes."""
        ...

    def results(self, output: Path, *, ordered: bool) -> JobResults: ...


class LinesInput:
    """A file of tasks, one a line."""

    about = b""

    def __init__(self, path: Path) -> None:
        self.path = path

    def survey(self) -> Survey:
        return survey(self.path)

    def lines(
        self, source: InputFile, job: str, ids: Ids, after: int
    ) -> Iterator[tuple[wire.JobLine, int]]:
        parser = LineParser(job, ids)
        for number, line in source.lines():
            if number > after and (parsed := parser.parse(number, line)) is not None:
                yield parsed, len(line)

    def results(self, output: Path, *, ordered: bool) -> JobResults:
        return Results(output, ordered=ordered)
