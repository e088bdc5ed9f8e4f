"""Coverage-guided fuzzing of the server's door: bytes -> frames -> requests -> frontdoor -> SQL.

    pip install -r requirements/fuzz.txt
    python -P bench/fuzz.py [--inputs 1000000] [--seed 1]

libFuzzer, through atheris, chooses what to keep by the branches it reaches in our code. An input is
what one client sends after its hello; it starts from one of every kind of request, and is changed
either in the values of one of its messages or in its bytes. The door is the real one, on SQLite in
memory (tests/door.py). An input fails that raises anything but an error of ours, makes a write
fail for no reason a client may be told, or leaves a request unanswered.

Prints and writes to bench/results/fuzz.json: inputs, failures, inputs per second, and how much
memory the second half of the run added. Ends with 1 if anything failed.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final, cast

import atheris  # pyright: ignore

from bench import report
from bench.report import Figure

with cast("Any", atheris).instrument_imports(include=["autoglm", "actors", "runtime"]):
    from autoglm import wire
    from autoglm.errors import ProtocolError
    from tests.door import Door
    from tests.mangled import HELLO, REQUESTS, altered, damaged, framed, split

VISITS_PER_DOOR: Final = 2000
"""A new store after so many inputs, so that it stays small."""
INPUT_BYTES_MAX: Final = 4096
FAILURES_KEPT: Final = 20


class Tally:
    """What has been tried so far, and what came of it."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.count = 0
        self.failures: list[str] = []
        self.outcomes: Counter[str] = Counter()
        """Replies by their kind, errors by their code."""
        self.began = time.perf_counter()
        self.rss_half_bytes = 0
        self._door = Door()

    def try_one(self, data: bytes) -> None:
        self.count += 1
        if self.count % VISITS_PER_DOOR == 0:
            self._door.close()
            self._door = Door()
        if self.count == self.inputs // 2:
            self.rss_half_bytes = _rss_bytes()
        rng = random.Random(len(data))
        try:
            visit = self._door.visit(split(HELLO + data, rng))
        except Exception as error:
            self._failed(data, repr(error))
            return
        if self._door.broken:
            self._failed(data, self._door.broken.pop())
        if visit.ended is None and visit.unanswered:
            self._failed(data, f"unanswered: {visit.unanswered}")
        for reply in visit.replies:
            kind = reply.code if isinstance(reply, wire.Error) else type(reply).__name__
            self.outcomes[kind] += 1

    def figures(self) -> list[Figure]:
        seconds = time.perf_counter() - self.began
        growth = (_rss_bytes() - self.rss_half_bytes) / 1e6
        return [
            Figure("inputs", "", [self.count]),
            Figure("failures", "", [len(self.failures)], 0, less=True),
            Figure("inputs tried in a second", "", [self.count / seconds]),
            Figure("memory that the second half added", "MB", [growth], less=True),
        ]

    def _failed(self, data: bytes, why: str) -> None:
        self.failures.append(f"{data.hex()}: {why}"[:2000])


def mutate(data: bytes, size_max: int, seed: int) -> bytes:
    """The next input: whole frames with other values half of the time, other bytes otherwise."""
    rng = random.Random(seed)
    draw = rng.random()
    if draw < 0.5:
        bodies = _bodies(data) or [b""]
        place = rng.randrange(len(bodies))
        bodies[place] = altered(bodies[place], rng)
        if rng.random() < 0.3:
            bodies.append(rng.choice(_SEEDS)[wire.HEADER_BYTES :])
        data = b"".join(map(framed, bodies))
    elif draw < 0.75:
        data = damaged(data, rng)
    else:
        data = cast("Any", atheris).Mutate(data, size_max)
    return data[:size_max]


def _bodies(data: bytes) -> list[bytes]:
    try:
        return list(wire.FrameSplitter(INPUT_BYTES_MAX).feed(data))
    except ProtocolError:
        return []


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


_SEEDS = [wire.encode_frame(request) for request in REQUESTS]


def main() -> None:
    parser = report.options("fuzz", __doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if options.quick:
        options.inputs = 10_000
    state = report.conditions(options, ("atheris",))
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(_SEEDS):
            (Path(folder) / str(number)).write_bytes(seed)
        tally = Tally(options.inputs)

        def one(data: bytes) -> None:
            tally.try_one(data)
            if tally.count >= options.inputs:
                _finish(tally, options.output, state)

        limits = (f"-seed={options.seed}", f"-max_len={INPUT_BYTES_MAX}", "-report_slow_units=60")
        flags = (*limits, "-verbosity=0", f"-artifact_prefix={folder}/", folder)
        fuzzer = cast("Any", atheris)
        fuzzer.Setup([sys.argv[0], *flags], one, custom_mutator=mutate)
        fuzzer.Fuzz()


def _finish(tally: Tally, output: Path, state: dict[str, Any]) -> None:
    """Write the report and end the process: libFuzzer does not return."""
    details = {"failures": tally.failures[:FAILURES_KEPT], "replies": dict(tally.outcomes)}
    code = report.finish(output, state, tally.figures(), details)
    sys.stdout.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
