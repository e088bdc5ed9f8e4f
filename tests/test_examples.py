"""Help, examples, completion and docs/commands.md: what is shown is what can be typed."""

from __future__ import annotations

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest

from actors.commandsdocs import rendered
from actors.completion import SHELLS
from actors.main import EXTRA
from autoglm import cli
from autoglm.examples import EXAMPLES, leaves
from tests.commands import main_in

ROOT = Path(__file__).parent.parent
COMMANDS = dict(leaves(cli.build_parser(EXTRA)))
LINES = [
    line.strip()
    for text in (*EXAMPLES.values(), *(each.epilog or "" for each in COMMANDS.values()))
    for line in text.splitlines()
    if line.startswith("  autoglm ")
]


def test_the_document_is_made_from_the_code() -> None:
    assert (ROOT / "docs" / "commands.md").read_text() == rendered()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    assert f"autoglm {name}" in (COMMANDS[name].epilog or "")


def test_every_text_of_examples_is_that_of_a_command() -> None:
    assert set(EXAMPLES) <= set(COMMANDS)


@pytest.mark.parametrize("line", sorted(set(LINES)))
def test_every_example_can_be_typed(line: str) -> None:
    typed = line.partition("  ")[0].partition(" | ")[0].partition(" > ")[0].partition(" < ")[0]
    arguments = cli.build_parser(EXTRA).parse_args(shlex.split(typed)[1:])
    assert isinstance(arguments, argparse.Namespace)


def test_the_exit_codes_are_in_the_help(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main_in(tmp_path, "--help") == 0
    shown = capsys.readouterr().out
    assert "exit codes: 0 done; 1 some" in shown
    assert "130 interrupted" in shown


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_is_told_of_every_command(
    shell: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main_in(tmp_path, "completion", shell) == 0
    script = capsys.readouterr().out
    assert all(part in script for name in COMMANDS for part in name.split())
    assert "for-spreadsheet" in script


def test_bash_completes_commands_and_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    main_in(tmp_path, "completion", "bash")
    script = capsys.readouterr().out
    asked = (
        'complete_as() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_autoglm autoglm;'
        ' echo "${COMPREPLY[@]}"; }\n'
        "complete_as autoglm expo; complete_as autoglm dead re; complete_as autoglm export --for\n"
    )
    done = subprocess.run(
        ["bash", "-c", script + "\n" + asked], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["export", "retry", "--format --force --for-spreadsheet"]
