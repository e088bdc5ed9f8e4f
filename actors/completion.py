"""`autoglm completion`: what a shell reads to complete commands and options."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from autoglm import cli

SUMMARY = "print what a shell needs to complete commands and options"
SHELLS = ("bash", "zsh", "fish")


def add(subparsers: cli.Subparsers[cli.Parser], extra: Sequence[cli.Extra]) -> None:
    """Add the command. `extra`: what else there is to complete."""

    def completion(arguments: argparse.Namespace) -> int:
        import shtab  # noqa: PLC0415 - no other command needs it

        text = shtab.complete(cli.build_parser(extra), shell=arguments.shell)
        sys.stdout.write(text + "\n")
        return 0

    parser = cli.add_command(subparsers, "completion", SUMMARY, completion)
    parser.add_argument("shell", choices=SHELLS)
