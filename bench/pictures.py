"""Draws the pictures of the README: `autoglm run` and `autoglm top` on real terminals, as SVG.

A server answers a file of questions of three tenants; what two terminals show meanwhile is taken as
it stands, colours and all, and drawn by rich. Nothing of this machine is in it but a process id.

    python -P -m bench.pictures [--engine simulated]
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from bench.screen import Screen
from tests.system.real import AUTOGLM, Server

PICTURES: Final = Path(__file__).parent.parent / "docs" / "pictures"
QUESTIONS: Final = Path(__file__).parent.parent / "demo" / "questions.jsonl"
LINES: Final = 1200
RUN_SIZE, TOP_SIZE = (88, 12), (112, 32)
LOAD_S: Final = 240
WARM_S, LOOK_S = 12, 8
_FRAMES: Final = re.compile(rb"\x1b\[H|(?:\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)+)")
_CONTROLS: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-ln-~]")
_FONTS: Final = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def questions() -> str:
    """The questions of the demo, again and again, in queues and of tenants of their own."""
    asked = [json.loads(line) for line in QUESTIONS.read_text().splitlines()]
    lines: list[str] = []
    for number in range(LINES):
        body = asked[number % len(asked)] | {
            "tenant": ("acme", "umbrella", "initech")[number % 7 % 3],
            "queue": ("normal", "core", "background")[number % 5 % 3],
        }
        lines.append(json.dumps(body))
    lines[10] = "this line is broken, and stops nothing"
    return "\n".join(lines) + "\n"


def last_frame(seen: bytes) -> Text:
    """The last whole picture among what was written to a terminal."""
    frames = [frame for frame in _FRAMES.split(seen) if frame.count(b"\n") > 2]
    text = frames[-1 if len(frames) < 2 else -2].decode()
    lines = [line.rstrip("\r") for line in _CONTROLS.sub("", text).split("\n")]
    return Text("\n").join(Text.from_ansi(line) for line in lines)


def draw(name: str, title: str, picture: Text, cells: int) -> None:
    """docs/pictures/NAME.svg; it asks no other place for fonts."""
    console = Console(record=True, width=cells, file=io.StringIO(), force_terminal=True)
    console.print(picture, no_wrap=True, crop=False)
    svg = console.export_svg(title=title, unique_id=f"autoglm-{name}")
    svg = _FONTS.sub("", svg).replace("Fira Code, monospace", "Fira Code, Menlo, monospace")
    path = PICTURES / f"{name}.svg"
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    print(path.relative_to(PICTURES.parent.parent))


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the pictures of the README.")
    parser.add_argument("--engine", choices=("vllm", "simulated"), default="vllm")
    engine = parser.parse_args().engine
    settings = ("--set", "engine.max_num_seqs=32", "--set", "engine.simulated.step_ms=60")
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(Path(folder) / "data", "--engine", engine, *settings) as server,
    ):
        place = Path(folder)
        (place / "questions.jsonl").write_text(questions())
        until = time.monotonic() + LOAD_S
        while '"ready"' not in server.ask("status", "--json").stdout:
            assert time.monotonic() < until, "the engine does not get ready"
            time.sleep(1)
        where = ("--data-dir", str(server.folder))
        words = ("run", "questions.jsonl", "-o", "answers.jsonl")
        with (
            Screen([*AUTOGLM, *words, *where], *RUN_SIZE, place) as run,
            Screen([*AUTOGLM, "top", *where], *TOP_SIZE, place) as top,
        ):
            run.read_for(WARM_S)
            top.read_for(LOOK_S)
            top.press(b"\x1b[B")
            top.read_for(2)
            run.read_for(1)
            draw("run", "autoglm " + " ".join(words), last_frame(run.seen), RUN_SIZE[0])
            draw("top", "autoglm top", last_frame(top.seen), TOP_SIZE[0])
    return 0


if __name__ == "__main__":
    sys.exit(main())
