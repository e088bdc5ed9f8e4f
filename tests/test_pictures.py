"""The pictures of the README are there, are SVG, show what they should and tell no secrets."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).parent.parent
SHOWN = {
    "run": ("autoglm run questions.jsonl -o answers.jsonl", "tokens/s", "prefix hits", "1,200"),
    "top": ("autoglm top", "ENGINE", "QUEUE", "TENANT", "SLOWEST", "ACTOR", "quit", "umbrella"),
}


def words_of(name: str) -> str:
    """All that stands in the picture."""
    root = ET.fromstring((ROOT / "docs" / "pictures" / f"{name}.svg").read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    return " ".join(root.itertext()).replace("\xa0", " ")


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_shows_what_it_is_of(name: str) -> None:
    words = words_of(name)
    for word in SHOWN[name]:
        assert word in words


@pytest.mark.parametrize("name", SHOWN)
def test_a_picture_names_no_folder_and_loads_nothing(name: str) -> None:
    svg = (ROOT / "docs" / "pictures" / f"{name}.svg").read_text()
    assert not re.findall(r"/(?:tmp|home|root|work|Users|var)\b", svg)
    assert set(re.findall(r"https?://[^\s\"<)]+", svg)) == {"http://www.w3.org/2000/svg"} | set(
        re.findall(r"https://www.textualize.io[^\s\"<)]*", svg)
    )
    assert "@font-face" not in svg


def test_the_readme_shows_them() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in SHOWN:
        assert f"](docs/pictures/{name}.svg)" in readme
