"""The models that have names, and what else may stand for one."""

from __future__ import annotations

from pathlib import Path

from autoglm.errors import ConfigError
from autoglm.text import one_line

MODELS = ("smollm2", "tiny")
"""`smollm2` comes as a package; `tiny` is made up for tests."""


def check_model(name: str) -> None:
    """Raises ConfigError, which names the known ones, unless `name` is one or a model's folder."""
    if name in MODELS or (Path(name).expanduser() / "config.json").is_file():
        return
    raise ConfigError(
        f"unknown model {one_line(name, 80)}: the known ones are {', '.join(MODELS)}; any other is"
        " given as the path of its folder, with config.json in it"
    )
