"""`autoglm config`: what the configuration is, whether a file is one, and what one may hold."""
# ruff: noqa: PLC0415 - what reads a configuration is slow to import, and no other command needs it

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from autoglm import cli
from autoglm.errors import ConfigError, UsageError
from autoglm.paint import paint_for
from autoglm.text import one_line
from autoglm.types import to_json

if TYPE_CHECKING:
    from runtime.configload import Loaded

SUMMARY = "show, check and describe the configuration"
EXAMPLES = """\
examples:
  autoglm config show                              every value there is; all of it is a valid file
  autoglm config show engine --config autoglm.yaml one section, and where each value comes from
  autoglm config check autoglm.yaml                line and column of what is wrong; exit code 2
  autoglm config schema > autoglm.schema.json      for an editor that completes and checks YAML
"""
Settings = Callable[[argparse.Namespace], list[str]]
_VALUE_COLUMN = 40


def add(subparsers: cli.Subparsers[cli.Parser], settings_of: Settings) -> None:
    """Add the command. `settings_of`: `--set` and what stands for it, of a command line."""
    parser = subparsers.add_parser(
        "config",
        help=SUMMARY,
        description=f"{SUMMARY.capitalize()}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True, parser_class=cli.Parser)

    def show(arguments: argparse.Namespace) -> int:
        return _show(arguments, settings_of(arguments))

    def check(arguments: argparse.Namespace) -> int:
        return _check(arguments, settings_of(arguments))

    summary = "print every value and where it comes from: default, file or command line"
    shown = cli.add_command(actions, "show", summary, show)
    shown.add_argument("section", metavar="SECTION", nargs="?", help="this one alone, e.g. engine")
    summary = "say whether a file is a configuration, and if not, why and where"
    checked = cli.add_command(actions, "check", summary, check)
    checked.add_argument("file", metavar="FILE.yaml", type=Path, nargs="?")
    cli.add_command(actions, "schema", "print the JSON schema of a configuration file", _schema)


def _show(arguments: argparse.Namespace, settings: list[str]) -> int:
    from runtime.configfields import as_written
    from runtime.configload import DEFAULT, leaves, load_with_sources

    loaded = load_with_sources(arguments.config, settings)
    tree = as_written(loaded.config)
    section = arguments.section
    if section is not None:
        if section not in tree:
            near = difflib.get_close_matches(section, tree, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(tree)}"
            raise UsageError(f"no section {one_line(section, 40)!r}; {hint}")
        tree = {section: tree[section]}
    if arguments.json:
        for path, value in leaves(tree):
            line = {"key": path, "value": value, "from": loaded.source(path)}
            sys.stdout.write(to_json(line).decode() + "\n")
        return 0
    paint = paint_for(sys.stdout)
    for line, source in _lines(tree, "", loaded):
        comment = paint(f"# {source}", "dim" if source == DEFAULT else "cyan") if source else ""
        sys.stdout.write(f"{line:{_VALUE_COLUMN}} {comment}".rstrip() + "\n")
    return 0


def _check(arguments: argparse.Namespace, settings: list[str]) -> int:
    from runtime.configload import load

    file = arguments.file or arguments.config
    if file is None:
        raise UsageError("config check: which file? autoglm config check FILE.yaml")
    try:
        load(file, settings)
    except ConfigError as error:
        if arguments.json:
            what = {"key": error.at, "line": error.line, "column": error.column}
            verdict = {"file": str(file), "valid": False, **what, "message": str(error)}
            sys.stdout.write(to_json(verdict).decode() + "\n")
            return error.exit_code
        raise
    verdict = {"file": str(file), "valid": True}
    sys.stdout.write(to_json(verdict).decode() if arguments.json else f"{file} is in order")
    sys.stdout.write("\n")
    return 0


def _schema(arguments: argparse.Namespace) -> int:
    import msgspec

    from runtime.configfields import schema

    text = to_json(schema())
    text = text if arguments.json else msgspec.json.format(text, indent=2)
    sys.stdout.write(text.decode() + "\n")
    return 0


def _lines(tree: dict[str, Any], path: str, loaded: Loaded) -> Iterator[tuple[str, str]]:
    """YAML, each line with where its value comes from."""
    indent = "  " * path.count(".") + ("  " if path else "")
    for name, value in tree.items():
        full = f"{path}.{name}" if path else name
        if isinstance(value, dict) and value:
            yield f"{indent}{_scalar(name)}:", ""
            yield from _lines(cast("dict[str, Any]", value), full, loaded)
        else:
            yield f"{indent}{_scalar(name)}: {_scalar(value)}", loaded.source(full)


def _scalar(value: Any) -> str:
    """One line of YAML, ASCII alone: what stands in a configuration may be hostile."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, width=sys.maxsize, sort_keys=False)
    return text.removesuffix("...\n").rstrip("\n")
