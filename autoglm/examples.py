"""What stands below the options in every command's help: a line of what one would type, and why.

Kept in one place, so that a test can try each line and docs/commands.md is made from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import cast

EXIT_CODES = """\
exit codes: 0 done; 1 some of the work failed; 2 wrong usage or configuration; 3 no server, or it
refused; 130 interrupted
"""

EXAMPLES: dict[str, str] = {
    "serve": """\
  autoglm serve                                     with the packaged model, until ^C or SIGTERM
  autoglm serve --config autoglm.yaml --set batch.window_ms=5
  autoglm serve --engine simulated --data-dir /tmp/try
""",
    "run": """\
  autoglm run prompts.jsonl -o answers.jsonl        again, to go on where it stopped
  autoglm run --template 'Good or bad? {review}' --from reviews.csv -o labelled.csv --max-tokens 3
""",
    "submit": """\
  autoglm submit "Why is the sky blue?" --wait
  autoglm submit - --stream --max-tokens 200 < letter.txt
  autoglm submit "Urgent." --priority 0 --deadline 10m --expires 1d
  autoglm submit --template 'Summarise: {text}' --from pages.jsonl --queue background
""",
    "get": """\
  autoglm get ny3b9c2k                              an id can be shortened to its beginning or end
  autoglm get 01m7z4sejh9q8q8ye0newypn1c --wait     the answer alone
  autoglm get 01m7z4sejh9q8q8ye0newypn1c --json
""",
    "list": """\
  autoglm list --state dead --limit 20
  autoglm list --tenant shop --json
""",
    "cancel": """\
  autoglm cancel ny3b9c2k 8ye0new1
  autoglm cancel --job 01m7z64t9m4wjfsbjzmfm4nyfq
""",
    "status": """\
  autoglm status                                    exit code 3 when no server runs
  autoglm status --json
""",
    "top": """\
  autoglm top                                       q ends it
""",
    "events": """\
  autoglm events --task ny3b9c2k
  autoglm events --follow --json
""",
    "prune": """\
  autoglm prune --older-than 30d
""",
    "queues": """\
  autoglm queues
""",
    "tenants": """\
  autoglm tenants --json
""",
    "doctor": """\
  autoglm doctor                                    exit code 1 when something does not work
  autoglm doctor --engine simulated --json
""",
    "completion": """\
  eval "$(autoglm completion bash)"                 in ~/.bashrc
  autoglm completion zsh > ~/.zfunc/_autoglm        where fpath has ~/.zfunc
  autoglm completion fish > ~/.config/fish/completions/autoglm.fish
""",
    "config show": """\
  autoglm config show engine --config autoglm.yaml
""",
    "config check": """\
  autoglm config check autoglm.yaml
""",
    "config schema": """\
  autoglm config schema > autoglm.schema.json
""",
    "dead list": """\
  autoglm dead list --reason timeout
""",
    "dead show": """\
  autoglm dead show ny3b9c2k
""",
    "dead retry": """\
  autoglm dead retry ny3b9c2k
  autoglm dead retry --all --reason timeout --yes
""",
    "dead discard": """\
  autoglm dead discard --all --tenant shop
""",
    "queue list": """\
  autoglm queue list
""",
    "queue pause": """\
  autoglm queue pause background
""",
    "queue resume": """\
  autoglm queue resume background
""",
    "queue drain": """\
  autoglm queue drain core
""",
    "archive list": """\
  autoglm archive list --tenant shop
""",
    "drill kill-engine": """\
  autoglm drill kill-engine
""",
    "drill hang-engine": """\
  autoglm drill hang-engine engine-1
""",
    "drill kill-actor": """\
  autoglm drill kill-actor scheduler
""",
    "drill slow-disk": """\
  autoglm drill slow-disk 200 --for 30s
""",
    "drill fill-disk": """\
  autoglm drill fill-disk --for 10s
""",
}


def add_examples(parser: argparse.ArgumentParser) -> None:
    """Put the examples, and the exit codes, below the help of every command."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"autoglm COMMAND --help has examples of each\n{EXIT_CODES}"
    for name, command in leaves(parser):
        if name in EXAMPLES:
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            command.epilog = f"examples:\n{EXAMPLES[name]}"


def leaves(
    parser: argparse.ArgumentParser, path: str = ""
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command by its name, such as `dead list`."""
    for action in parser._actions:  # pyright: ignore[reportPrivateUsage]  # there is no other way to them
        if isinstance(action, argparse._SubParsersAction):  # pyright: ignore[reportPrivateUsage]
            choices = cast("dict[str, argparse.ArgumentParser]", action.choices)  # pyright: ignore[reportUnknownMemberType]
            for name, inner in choices.items():
                yield from leaves(inner, f"{path} {name}".strip())
            return
    yield path, parser
