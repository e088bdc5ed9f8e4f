"""`autoglm run`: a job on the server that is there, or on one of its own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from actors.own_server import own_server
from autoglm.errors import ServerError, ServerNotRunning
from autoglm.inputfile import open_input
from autoglm.job import JobOptions, run_job
from autoglm.paths import Places, places
from autoglm.progress import shown_progress, summary
from autoglm.resultfile import errors_path
from autoglm.session import Session
from autoglm.types import to_json
from runtime.config import Config

EXIT_DONE, EXIT_FAILED = 0, 1


def run(
    arguments: argparse.Namespace,
    config: Config,
    settings: list[str],
    check_engine: Callable[[Config], None],
) -> int:
    """Answer the file; 1 when some line has no answer. Raises what ends the job early.

    `check_engine` is asked before a server is started.
    """
    where = places(arguments.socket, arguments.data_dir)
    asked = bool(arguments.engine or arguments.model or arguments.config or settings)
    options = JobOptions(
        arguments.input,
        arguments.output,
        fresh=arguments.fresh,
        ordered=arguments.ordered,
        engine=config.engine.kind if asked else None,
        model=config.engine.model if asked else None,
    )
    open_input(options.input).close()  # before a server is started in vain
    errand = _Errand(where, options, as_json=arguments.json)

    async def go() -> int:
        if await _somebody_listens(where):
            return await errand.run()
        check_engine(config)
        return await _with_own_server(errand, where, arguments.config, settings)

    return anyio.run(go)


class _Errand:
    """The job, its progress and its last words."""

    def __init__(self, where: Places, options: JobOptions, *, as_json: bool) -> None:
        self._where = where
        self._options = options
        self._as_json = as_json

    async def run(self) -> int:
        began = anyio.current_time()
        with shown_progress() as report:
            done = await run_job(self._options, self._where.socket, report)
        seconds = anyio.current_time() - began
        errors = errors_path(self._options.output)
        print(f"autoglm: {summary(done, seconds, str(errors))}", file=sys.stderr)
        if self._as_json:
            print(to_json(done).decode())
        return EXIT_FAILED if done.failed else EXIT_DONE


async def _somebody_listens(where: Places) -> bool:
    try:
        async with Session(where.socket, None):
            return True
    except ServerNotRunning:
        return False


async def _with_own_server(
    errand: _Errand, where: Places, config: Path | None, settings: list[str]
) -> int:
    """Run the errand on a server of its own; when that dies, say so at once."""
    code: int | None = None
    words = ""
    failure: Exception | None = None
    async with (
        own_server(where, config, settings) as server,
        anyio.create_task_group() as group,
    ):

        async def watch() -> None:
            nonlocal words
            words = await server.wait_ended()
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            code = await errand.run()
        except Exception as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if code is None:
        raise ServerError(f"the server ended ({words}); the same command goes on where it stopped")
    return code
