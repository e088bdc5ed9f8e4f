"""`autoglm run`: a job on the server that is there, or on one of its own."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from autoglm import rows
from autoglm.errors import ServerError, ServerNotRunning, ServerUnavailable, UsageError
from autoglm.inputfile import open_input
from autoglm.job import PATIENCE, JobOptions, run_job
from autoglm.jobinput import JobInput
from autoglm.own_server import own_server
from autoglm.paths import Places, places
from autoglm.progress import shown_progress, summary, tell_plainly
from autoglm.resultfile import errors_path
from autoglm.retry import Patience
from autoglm.session import AWAY, Session
from autoglm.table import CSV_SUFFIXES
from autoglm.text import one_line
from autoglm.types import to_json
from autoglm.wire import Welcome
from runtime import ourselves
from runtime.config import Config

EXIT_DONE, EXIT_FAILED = 0, 1
AMONG_RUNS = Patience(window_s=1, busy_s=math.inf, engine_s=math.inf)
"""A server that another run started for itself ends with it, and does not come back."""
TURN_S = 0.2


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

    def asked(option: str | None, setting: str) -> bool:
        named = any(each.partition("=")[0].strip() == setting for each in settings)
        return bool(option or arguments.config or named)

    source = _source(arguments)
    path = source if isinstance(source, Path) else source.path
    options = JobOptions(
        source,
        arguments.output,
        fresh=arguments.fresh,
        ordered=arguments.ordered,
        engine=config.engine.kind if asked(arguments.engine, "engine.kind") else None,
        model=config.engine.model if asked(arguments.model, "engine.model") else None,
    )
    open_input(path).close()  # before a server is started in vain
    errand = _Errand(where, options, as_json=arguments.json)

    async def go() -> int:
        while (server := await _listening(where)) is not None:
            if not server.private:
                return await errand.run(PATIENCE)
            try:
                return await errand.run(AMONG_RUNS)
            except AWAY:
                await anyio.sleep(TURN_S)  # the run that it served is over: now it is our turn
        check_engine(config)
        tell_plainly("no server is running: starting one for this run")
        return await _with_own_server(errand, where, arguments.config, settings)

    try:
        return anyio.run(go)
    except KeyboardInterrupt:
        print("autoglm: stopped; the same command goes on from here", file=sys.stderr)
        raise


class _Errand:
    """The job, its progress and its last words."""

    def __init__(self, where: Places, options: JobOptions, *, as_json: bool) -> None:
        self._where = where
        self._options = options
        self._as_json = as_json

    async def run(self, patience: Patience) -> int:
        began = anyio.current_time()
        options = self._options
        source = options.input if isinstance(options.input, Path) else options.input.path
        with shown_progress(source, options.output) as (report, on_answers):
            done = await run_job(
                *(options, self._where.socket, report, patience), on_answers=on_answers
            )
        seconds = anyio.current_time() - began
        of_rows = not isinstance(options.input, Path)
        errors = str(options.output if of_rows else errors_path(options.output))
        print(f"autoglm: {summary(done, seconds, errors)}", file=sys.stderr)
        if self._as_json:
            print(to_json(done).decode())
        return EXIT_FAILED if done.failed else EXIT_DONE


def _source(arguments: argparse.Namespace) -> Path | JobInput:
    """Raises UsageError."""
    if arguments.template is None and arguments.table is None:
        rows.refuse_task_options(arguments)
        if arguments.input is None:
            raise UsageError("run: which file? autoglm run IN.jsonl -o OUT.jsonl")
        if arguments.input.suffix.lower() in CSV_SUFFIXES:
            raise UsageError(
                f"{one_line(str(arguments.input))} is a table: say what to ask of each row with"
                " --template '… {column} …' --from FILE"
            )
        return arguments.input
    if arguments.input is not None:
        raise UsageError("run: give a file of tasks, or --template and --from")
    return rows.table_of(arguments, "run")


async def _listening(where: Places) -> Welcome | None:
    """The server that is there."""
    try:
        return await _greeted(where)
    except ServerUnavailable:  # it may be dying, and its socket lives a moment longer
        await anyio.sleep(TURN_S)
        return await _greeted(where)


async def _greeted(where: Places) -> Welcome | None:
    try:
        async with Session(where.socket, None) as session:
            return session.server
    except ServerNotRunning:
        return None


async def _with_own_server(
    errand: _Errand, where: Places, config: Path | None, settings: list[str]
) -> int:
    """Run the errand on a server of its own; when that dies, say so at once."""
    code: int | None = None
    words = ""
    failure: Exception | None = None
    async with (
        own_server(
            where, config, settings, ourselves.command("actors.main"), ourselves.environment()
        ) as server,
        anyio.create_task_group() as group,
    ):

        async def watch() -> None:
            nonlocal words
            words = await server.wait_ended()
            group.cancel_scope.cancel()

        group.start_soon(watch)
        try:
            code = await errand.run(PATIENCE)
        except Exception as error:
            failure = error
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if code is None:
        raise ServerError(f"the server ended ({words}); the same command goes on where it stopped")
    return code
