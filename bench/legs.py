"""Engines that stay loaded and answer the same file again and again, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, cast

import anyio
import msgspec

from autoglm import Client, ServerNotRunning
from bench.report import HERE
from bench.served import cpu_seconds

LOAD_TIMEOUT_S: Final = 300
SETTLE_S: Final = 2.0
"""Before each leg: vLLM's worker looks out for work in a busy loop for a second after its last."""


class Leg:
    """An engine_leg process."""

    def __init__(
        self, kind: str, source: Path, settings: list[str], log: Path, **environment: str
    ) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-P", HERE / "engine_leg.py", kind, source, *settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env={**os.environ, **environment},
        )
        self.pid = self._process.pid

    def wait_until_ready(self) -> None:
        self._answer()

    def run(self, command: str) -> tuple[float, int]:
        """Seconds and tokens of one run."""
        stdin = cast("IO[str]", self._process.stdin)
        stdin.write(f"{command}\n")
        stdin.flush()
        answer = self._answer()
        return answer["seconds"], answer["tokens"]

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = cast("IO[str]", self._process.stdout).readline()
        if not line:
            raise SystemExit(f"a leg ended early:\n{self._log.read_text()[-2000:]}")
        return json.loads(line)


class Server:
    """`autoglm serve`, asked through the Python client."""

    def __init__(self, source: Path, settings: list[str], folder: Path) -> None:
        self._socket = folder / "autoglm.sock"
        self._bodies = [json.loads(line)["body"] for line in source.read_text().splitlines()]
        options = [word for setting in settings for word in ("--set", setting)]
        where = ["--data-dir", str(folder / "data"), "--socket", str(self._socket)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "actors.main", "serve", *where, *options],
            stderr=(folder / "server.log").open("w"),
        )
        self.pid = self._process.pid

    def wait_until_ready(self) -> list[dict[str, str]]:
        """What the engine chose for this machine."""
        return anyio.run(self._wait_until_ready)

    def run(self, _command: str = "all") -> tuple[float, int]:
        """Seconds from the first submission to the last answer, and tokens."""
        return anyio.run(self._run)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    async def _run(self) -> tuple[float, int]:
        tokens = 0
        first = self._bodies[0]
        async with Client(self._socket) as client:
            began = time.perf_counter()
            async for result in client.map(
                [body["messages"] for body in self._bodies],
                in_flight=len(self._bodies),
                max_tokens=first["max_tokens"],
                temperature=first["temperature"],
            ):
                tokens += result.usage.completion_tokens
            return time.perf_counter() - began, tokens

    async def _wait_until_ready(self) -> list[dict[str, str]]:
        with anyio.fail_after(LOAD_TIMEOUT_S):
            while True:
                await anyio.sleep(0.5)
                with contextlib.suppress(ServerNotRunning):
                    async with Client(self._socket) as client:
                        (engine,) = (await client.status()).engines
                    if engine.state == "ready":
                        return [msgspec.structs.asdict(choice) for choice in engine.choices]


class Run(NamedTuple):
    """What one leg came to in one round."""

    seconds: float
    tokens: int
    cpu_seconds: float
    """Processor time of all the leg's processes."""


def timed(run: Callable[[], tuple[float, int]], pid: int) -> Run:
    """Run a leg once the one before it has come to rest."""
    time.sleep(SETTLE_S)
    before = cpu_seconds(pid)
    seconds, tokens = run()
    return Run(seconds, tokens, cpu_seconds(pid) - before)
