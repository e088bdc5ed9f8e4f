"""The command line as far as it can be told without a server: parsing, help, endings."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from autoglm import cli
from autoglm.errors import ConfigError, NotFound, TaskDead
from autoglm.types import TaskState
from tests.commands import main_in

COMMANDS: dict[str, list[str]] = {
    "submit": ["text"],
    "get": ["id"],
    "list": [],
    "cancel": ["id"],
    "edit": ["id", "--priority", "3"],
    "status": [],
    "top": [],
    "events": [],
    "export": [],
    "prune": ["--older-than", "30d"],
    "dead": ["list"],
    "drill": ["kill-engine"],
    "queue": ["list"],
    "queues": [],
    "tenants": [],
    "pause": ["id"],
    "resume": ["id"],
    "drain": ["id"],
    "archive": ["list"],
}


def parse(*argv: str) -> argparse.Namespace:
    return cli.build_parser().parse_args(argv)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What is said about a command line that is wrong."""
    with pytest.raises(SystemExit) as ended:
        cli.main(argv)
    assert ended.value.code == cli.EXIT_USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("autoglm: ")
    assert output.err.count("\n") == 1
    return output.err


def test_every_command_is_in_this_test(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    listed = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in listed
    assert listed.count("\n    ") == len(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: autoglm {command}" in text
    assert text.split("\n\n")[1].rstrip().endswith(".")


@pytest.mark.parametrize(("command", "needed"), COMMANDS.items())
def test_every_command_takes_the_common_options(command: str, needed: list[str]) -> None:
    options = ("--socket", "/s", "--data-dir", "/d", "--json", "--engine", "simulated")
    more = ("--model", "tiny", "--config", "c.yaml", "--set", "a=1", "--set", "a=2")
    arguments = parse(command, *needed, *options, *more)
    assert (arguments.socket, arguments.data_dir, arguments.json) == ("/s", "/d", True)
    assert (arguments.model, arguments.config) == ("tiny", Path("c.yaml"))
    assert arguments.settings == ["a=1", "a=2"]


@pytest.mark.parametrize("priority", range(10))
def test_priorities_from_0_to_9_are_taken(priority: int) -> None:
    assert parse("submit", "x", "--priority", str(priority)).priority == priority


@pytest.mark.parametrize("priority", ["-1", "10", "high", "1.5", "", "٣٤"])
def test_any_other_priority_is_refused(priority: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "0 (most urgent) to 9" in refusal(capsys, "submit", "x", f"--priority={priority}")


def test_durations_are_in_seconds_or_words() -> None:
    arguments = parse("submit", "x", "--deadline", "2h", "--expires", "90")
    assert (arguments.deadline, arguments.expires) == (7200, 90)
    arguments = parse("submit", "x", "--timeout", "30s", "--max-attempts", "5")
    assert (arguments.attempt_timeout, arguments.max_attempts) == (30, 5)


def test_what_is_no_duration_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "write 30s, 10m, 2h or 1d" in refusal(capsys, "submit", "x", "--expires", "soon")


@pytest.mark.parametrize(("name", "state"), [("DEAD", TaskState.DEAD), ("failed", TaskState.DEAD)])
def test_states_are_known_by_every_name(name: str, state: TaskState) -> None:
    assert parse("list", "--state", name).state is state


def test_an_unknown_state_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "there are: scheduled" in refusal(capsys, "list", "--state", "done")


def test_lists_of_options_add_up() -> None:
    arguments = parse("submit", "x", "--after", "a", "b", "--stop", "1", "--after", "c")
    assert (arguments.after, arguments.stop) == (["a", "b", "c"], ["1"])


@pytest.mark.parametrize(
    "argv",
    [
        *([], ["nonsense"], ["get"], ["submit", "x", "--wait", "--stream"]),
        *(["submit", "x", "--prio", "1"], ["list", "--limit", "many"], ["top", "extra"]),
        ["submit", "x", "--engine", "other"],
    ],
)
def test_wrong_usage_is_one_line_that_leads_to_the_help(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--help" in refusal(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["submit"], "give a prompt, - for stdin, or --template and --from"),
        (["submit", "--template", "{a}"], "--template and --from go together"),
        (["submit", "x", "--template", "{a}", "--from", "t.csv"], "neither a prompt nor --wait"),
        (["submit", "--template", "{a}", "--from", "none.csv"], "none.csv: No such file"),
        (["run", "-o", "out"], "which file?"),
        (["run", "in", "-o", "out", "--template", "{a}"], "a file of tasks, or --template"),
        (["run", "in", "-o", "out", "--max-tokens", "3"], "--max-tokens goes with --template"),
        (["run", "in", "-o", "out", "--factor", "a=3"], "--factor goes with --template"),
    ],
)
def test_what_a_task_is_made_of_is_said_in_one_way(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main_in(tmp_path, *argv) == cli.EXIT_USAGE
    assert said in capsys.readouterr().err


def fail_with(error: BaseException) -> Callable[[cli.Subparsers[cli.Parser]], None]:
    """A command `fail` that ends so."""

    def run(_: argparse.Namespace) -> int:
        raise error

    return lambda subparsers: cli.add_command(subparsers, "fail", "fail", run) and None


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TaskDead("task x is dead"), 1, "autoglm: task x is dead\n"),
        (ConfigError("no such key"), 2, "autoglm: no such key\n"),
        (NotFound("no task x"), 3, "autoglm: no task x\n"),
        (NotFound("a\x1b[31m title\nforged"), 3, "autoglm: a title forged\n"),
        (FileNotFoundError(2, "No such file", "f"), 1, "autoglm: f: No such file\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_how_a_command_ends(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["fail"], [fail_with(error)]) == code
    assert capsys.readouterr().err == line


def test_an_error_of_ours_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["fail"], [fail_with(ZeroDivisionError("oops"))]) == 1
    assert "AUTOGLM_TRACEBACK=1" in capsys.readouterr().err
    monkeypatch.setenv("AUTOGLM_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"], [fail_with(ZeroDivisionError("oops"))])


def test_cancel_wants_either_ids_or_a_job(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for argv in (["cancel"], ["cancel", "a", "--job", "b"]):
        assert cli.main([*argv, "--data-dir", str(tmp_path)]) == cli.EXIT_USAGE
        assert "either ids or --job" in capsys.readouterr().err


@pytest.mark.parametrize(("command", "needed"), COMMANDS.items())
def test_without_a_server_every_command_says_how_to_start_one(
    command: str, needed: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main([command, *needed, "--data-dir", str(tmp_path)]) == 3
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "autoglm serve" in output.err


def test_factors_are_collected_and_a_deadline_can_be_taken_away() -> None:
    given = parse("submit", "x", "--factor", "a=3", "--factor", "b=0.5", "--weight", "6")
    assert (given.factors, given.weight) == ([("a", 3.0), ("b", 0.5)], 6.0)
    assert parse("edit", "x", "y", "--deadline", "none").deadline == "none"
    assert parse("edit", "x", "--deadline", "2h").deadline == 7200.0


@pytest.mark.parametrize(
    "wrong", [("--factor", "a"), ("--factor", "=1"), ("--factor", "a=11"), ("--weight", "nan")]
)
def test_a_factor_or_a_weight_that_is_no_number_is_refused(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "argument --" in refusal(capsys, "submit", "x", *wrong)
