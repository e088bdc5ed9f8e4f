"""A server at work as the live view sees it, for tests; run as a program it draws the snapshots.

python -P -m tests.liveviews
"""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from rich.console import Console
from rich.text import Text

from autoglm.degrade import QueueStatus
from autoglm.live.picture import picture
from autoglm.live.state import State
from autoglm.live.view import View
from autoglm.service import Hold, Service, TenantStatus
from autoglm.status import (
    ActorStatus,
    BatchStatus,
    EngineChoice,
    EngineStatus,
    RecentFailure,
    RunningTask,
    ServerStatus,
    Status,
)

STARTED_MS = 1_700_000_000_000
NOW_MS = STARTED_MS + 185_000
SIZES = ((80, 24), (120, 30), (200, 50))
SNAPSHOTS = Path(__file__).parent / "data" / "live"
HOSTILE = "\x1b[2J\x1b]0;title\x07[red]not markup[/red]\u202e\n漢字 👩\u200d👩\u200d👧 e\u0301"
ACTORS = (
    *("frontdoor", "monitor", "reader", "retention"),
    *("persister", "scheduler", "batcher-1", "batcher-2"),
)


def service(
    weight: float, due: float, used: float, running: int, waiting: int, done: float | None
) -> Service:
    return Service(weight, due, used, running, None, waiting, done)


DOWN = {
    "state": "down",
    "breaker": "open",
    "running": 0,
    "waiting": 0,
    "tokens_per_s": 0.0,
    "kv_usage": 0.0,
    "prompt_tokens": 0,
}
PAUSED = Service(3, 0.1, 0.2, 20, 64, 34, None, (Hold("paused", "queue normal is paused by ann"),))


def engine(number: int, **more: object) -> EngineStatus:
    choices = (EngineChoice("dtype", "bfloat16", "the processor has AMX"),)
    status = EngineStatus(
        *(f"engine-{number}", "ready", "closed", "glm", 60, 4, 64, 1234.56, 4711, choices),
        kv_usage=0.42,
        prompt_tokens=1000,
        cached_tokens=350,
    )
    return msgspec.structs.replace(status, **more)


def actor(name: str, **more: object) -> ActorStatus:
    return msgspec.structs.replace(ActorStatus(name, "running", 0, "closed", 1, 99), **more)


def task(number: int, **more: object) -> RunningTask:
    id = f"01j9z3c6v1a9000000000000{number:02}"
    slow = RunningTask(
        id, "acme", "core", 5, 1, "engine-1", 31.2 - number, "Why is the sky so very blue?"
    )
    return msgspec.structs.replace(slow, **more)


def failure(number: int, **more: object) -> RecentFailure:
    failed = RecentFailure(
        *(f"01j9z3c6v1a9zz0000000000{number:02}", "acme", "core", 2, NOW_MS - 5000 * number),
        *("timeout", "not answered within 300 s", "retrying", "engine-1"),
    )
    return msgspec.structs.replace(failed, **more)


def status() -> Status:
    return Status(
        ServerStatus("0.1.0", 4711, STARTED_MS, "running", "vllm", "smollm2", "/data"),
        {"pending": 1_234_567, "running": 64, "succeeded": 12_345, "dead": 2},
        (
            engine(1),
            engine(2, error="killed by SIGKILL", restarts=3, **DOWN),
        ),
        tuple(actor(name, mailbox=place, restarts=place // 7) for place, name in enumerate(ACTORS)),
        BatchStatus(12, 3.4, {"size": 1, "window": 8, "idle": 3}),
        (
            QueueStatus("core", "queue", service=service(6, 0.9, 0.8, 40, 1200, 61.0)),
            QueueStatus("normal", "queue", paused=True, paused_by="ann", service=PAUSED),
            QueueStatus("background", "cached", "live", service=service(1, 0.0, 0.0, 0, 0, None)),
        ),
        (
            TenantStatus("acme", service(2, 0.5, 0.8, 40, 900, 30.0)),
            TenantStatus("漢字", service(1, 0.25, 0.2, 20, 300, 90.0)),
            TenantStatus("umbrella", service(1, 0.25, 0.0, 0, 1_233_367, None)),
        ),
        (*(task(number) for number in range(1, 7)), task(7, tenant=HOSTILE, text=HOSTILE)),
        (failure(1), failure(2, state="dead", message=HOSTILE), failure(3)),
    )


def view(now: Status | None = None, **more: object) -> View:
    rates = [1000 + 300 * math.sin(second / 7) for second in range(150)]
    seen = View(now or status(), {"engine-1": rates, "engine-2": [0.0] * 90}, NOW_MS)
    return msgspec.structs.replace(seen, **more)


def lines_of(shown: Text, cells: int, rows: int | None = None) -> list[str]:
    """The lines as a terminal of that size gets them."""
    console = Console(width=cells, height=rows, color_system=None)
    with console.capture() as capture:
        console.print(shown)
    return [line.rstrip() for line in capture.get().splitlines()]


def snapshot(cells: int, rows: int) -> str:
    shown = picture(view(), State(selected="queue normal"), cells, rows)
    return "\n".join(lines_of(shown, cells, rows)) + "\n"


def path_of(cells: int, rows: int) -> Path:
    return SNAPSHOTS / f"{cells}x{rows}.txt"


if __name__ == "__main__":
    for size in SIZES:
        path_of(*size).write_text(snapshot(*size))
