"""A process is started, passed its files and reaped by a thread of its own."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from runtime.spawn import Spawned, posix_spawn, spawn


def python(program: str, output: Path | None = None) -> Callable[[], int]:
    def begin() -> int:
        with (output or Path(os.devnull)).open("ab") as file:
            return posix_spawn([sys.executable, "-c", program], os.environ, {1: file.fileno()})

    return begin


def ended(begin: Callable[[], int]) -> Spawned:
    async def run() -> Spawned:
        process = await spawn(begin, lambda: None)
        with anyio.fail_after(20):
            await process.wait()
        return process

    return anyio.run(run)


@pytest.mark.parametrize(
    ("program", "code"),
    [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", -9), ("", 0)],
)
def test_how_a_process_ended_is_told(program: str, code: int) -> None:
    assert ended(python(program)).code == code


def test_a_process_leads_a_session_of_its_own_and_gets_no_other_files(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "print(os.getsid(0) == os.getpid())\n"
        "print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"  # the last lists them
    )
    with (tmp_path / "not theirs").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        ended(python(program, tmp_path / "said"))
    assert (tmp_path / "said").read_text().splitlines() == ["True", "[0, 1, 2]"]


def test_what_python_ignores_is_not_ignored_there(tmp_path: Path) -> None:
    shell = "while read name mask; do test $name = SigIgn: && echo $mask; done < /proc/self/status"

    def begin() -> int:
        with (tmp_path / "said").open("ab") as file:
            return posix_spawn(["/bin/sh", "-c", shell], os.environ, {1: file.fileno()})

    assert ended(begin).code is not None
    ignored = int((tmp_path / "said").read_text(), 16)
    assert not ignored & 1 << signal.SIGPIPE - 1


def test_what_can_not_be_started_says_so() -> None:
    def begin() -> int:
        return posix_spawn(["/no/such/program"], os.environ, {})

    with pytest.raises(FileNotFoundError, match="/no/such/program"):
        ended(begin)


def test_whatever_begins_wrong_is_told() -> None:
    def begin() -> int:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        ended(begin)


def test_an_end_is_noticed_where_the_kernel_keeps_no_exit_codes() -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert ended(python("raise SystemExit(3)")).code is None
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_thread_lives_as_long_as_the_process_and_does_what_is_left_before_it_tells() -> None:
    """The kernel tells a process of its parent's death when the thread that began it ends."""
    steps: list[str] = []
    threads: list[threading.Thread] = []

    async def run() -> None:
        def begin() -> int:
            threads.append(threading.current_thread())
            return posix_spawn(["/bin/sleep", "600"], os.environ, {})

        process = await spawn(begin, lambda: steps.append("afterwards"))
        assert threads[0].is_alive()
        assert process.code is None
        os.kill(process.pid, 15)
        with anyio.fail_after(20):
            await process.wait()
        steps.append("told")

    anyio.run(run)
    threads[0].join(20)
    assert not threads[0].is_alive()
    assert steps == ["afterwards", "told"]


def test_the_event_loop_goes_on_while_a_process_begins() -> None:
    gate = threading.Event()

    def begin() -> int:
        assert gate.wait(20), "the event loop waits for us"
        return python("")()

    async def run() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(spawn, begin, lambda: None)
            await anyio.lowlevel.checkpoint()
            gate.set()

    anyio.run(run)
