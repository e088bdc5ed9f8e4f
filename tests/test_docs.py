"""What the README shows is what happens: its blocks run, and no command is left out."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from bench.figures import BEGIN, END, rendered
from tests.system.real import INSTANT, Server, autoglm, environment

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = README + "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
TIMEOUT_S = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)


def surroundings(folder: Path) -> dict[str, str]:
    """A home of its own, and an `autoglm` whose engine is the simulated one."""
    shim = folder / "bin" / "autoglm"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -P -m actors.main "$@" --engine simulated\n'
    )
    shim.chmod(0o755)
    path = f"{shim.parent}:{environment()['PATH']}"
    return environment(PATH=path, HOME=str(folder), AUTOGLM_DATA_DIR=str(folder / "data"))


def run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readme_has_blocks_of_both_kinds() -> None:
    assert len(blocks("sh")) >= 2
    assert blocks("python")


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    assert f"{BEGIN}\n{rendered()}\n{END}" in README


@pytest.mark.system
@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.split("\n")[0][:30])
def test_a_shell_block_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    assert run(["bash", "-euo", "pipefail", "-c", block], tmp_path, surroundings(tmp_path))


@pytest.mark.system
@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("\n")[0][:30])
def test_a_python_block_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    main = f"async def main():\n{textwrap.indent(block, '    ')}\nimport anyio\nanyio.run(main)\n"
    with Server(tmp_path / "data", *INSTANT):
        assert run([sys.executable, "-P", "-c", main], tmp_path, surroundings(tmp_path))


PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text()), target


def anchors(text: str) -> set[str]:
    """Of its headings, as those who show Markdown make them."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_every_page_is_named_in_the_readme() -> None:
    for path in PAGES[1:]:
        assert f"({path.relative_to(ROOT)})" in README, path.name


@pytest.mark.system
def test_every_command_is_in_the_readme_or_says_itself_what_it_does() -> None:
    listed = autoglm("--help").stdout
    commands = re.findall(r"^    (\w+)\s+(.*)$", listed, re.MULTILINE)
    assert {"serve", "run", "submit", "top"} <= {name for name, _ in commands}
    for name, summary in commands:
        assert summary or f"autoglm {name}" in DOCS, name
