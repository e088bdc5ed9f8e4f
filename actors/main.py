"""The `autoglm` command: the client's commands, and those that start a server.

Heavy imports stand inside the commands that need them, so that `autoglm status` stays quick.
"""
# ruff: noqa: PLC0415 - see above

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from typing import TYPE_CHECKING

from actors import backup, completion, configcommand
from autoglm import argtypes, cli
from autoglm.errors import ConfigError
from autoglm.options import add_run_options
from autoglm.paths import places

if TYPE_CHECKING:
    from runtime.config import Config


def main() -> None:
    """The entry point of the installed command."""
    gc.freeze()  # what is imported lives to the end; looking through it there takes a tenth of all
    sys.exit(cli.main(extra=EXTRA))


def config_of(arguments: argparse.Namespace) -> Config:
    """The configuration of a command line: the file, then `--engine` and `--model`, then `--set`.

    Raises ConfigError.
    """
    from runtime.configload import load

    return load(arguments.config, settings_of(arguments))


def settings_of(arguments: argparse.Namespace) -> list[str]:
    named = [("engine.kind", arguments.engine), ("engine.model", arguments.model)]
    return [*(f"{key}={value}" for key, value in named if value), *arguments.settings]


def check_engine(config: Config) -> None:
    """Raises ConfigError when it is plain already that the engine can't be loaded."""
    from model.available import check_available
    from model.engine import EngineUnavailable

    try:
        check_available(config.engine)
    except EngineUnavailable as error:
        raise ConfigError(str(error)) from None


def _add_serve(subparsers: cli.Subparsers[cli.Parser]) -> None:
    parser = cli.add_command(subparsers, "serve", "run a server until it is stopped", _serve)
    parser.add_argument(
        "--drain-timeout",
        type=argtypes.duration,
        default=30.0,
        metavar="30s",
        help="how long running work may go on after the first SIGTERM or Ctrl-C",
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


def _add_run(subparsers: cli.Subparsers[cli.Parser]) -> None:
    parser = cli.add_command(
        subparsers, "run", "answer a file, and take it up again where it stopped", _run
    )
    add_run_options(parser)


def _add_doctor(subparsers: cli.Subparsers[cli.Parser]) -> None:
    cli.add_command(subparsers, "doctor", "check the installation and this machine", _doctor)


def _add_config(subparsers: cli.Subparsers[cli.Parser]) -> None:
    configcommand.add(subparsers, settings_of)


def _add_completion(subparsers: cli.Subparsers[cli.Parser]) -> None:
    completion.add(subparsers, EXTRA)


def _serve(arguments: argparse.Namespace) -> int:
    config = config_of(arguments)
    where = places(arguments.socket, arguments.data_dir)
    check_engine(config)
    from actors.serve import ServeOptions, serve

    logging.basicConfig(
        level=os.environ.get("AUTOGLM_LOG", "WARNING").upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    return serve(config, where, ServeOptions(arguments.drain_timeout, arguments.parent))


def _run(arguments: argparse.Namespace) -> int:
    from actors.run import run

    return run(arguments, config_of(arguments), settings_of(arguments), check_engine)


def _doctor(arguments: argparse.Namespace) -> int:
    from actors.doctor import doctor

    where = places(arguments.socket, arguments.data_dir)
    return doctor(config_of(arguments), where, as_json=arguments.json)


EXTRA = (_add_serve, _add_run, _add_doctor, _add_config, backup.add, _add_completion)


if __name__ == "__main__":
    main()
