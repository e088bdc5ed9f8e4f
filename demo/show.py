"""Show what `autoglm run` answered: `show.py QUESTIONS.jsonl ANSWERS.jsonl`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autoglm.text import one_line


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def show(questions: list[dict[str, Any]], answers: list[dict[str, Any]], console: Console) -> None:
    """A table of questions and answers, and what they took. Answers come in input order."""
    table = Table("question", "answer", "tokens", row_styles=["", "dim"])
    table.columns[2].justify = "right"
    total = 0
    for question, answer in zip(questions, answers, strict=True):
        body = answer["response"]["body"]
        tokens = body["usage"]["completion_tokens"]
        text = body["choices"][0]["message"]["content"]
        table.add_row(Text(one_line(question["prompt"])), Text(one_line(text)), str(tokens))
        total += tokens
    console.print(table)
    console.print(f"{len(answers)} answers, {total} tokens, each recorded exactly once")


if __name__ == "__main__":
    show(lines(sys.argv[1]), lines(sys.argv[2]), Console())
