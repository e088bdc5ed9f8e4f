"""Names of models, and the folders behind them.

A model is a folder as Hugging Face lays it out (config.json, safetensors, tokenizer). Two have
names: `smollm2`, which comes as a package, and `tiny`, which is made up for tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model import smollm2, tiny
from model.engine import EngineUnavailable
from model.folders import cache_folder

NAMED: Final[dict[str, Callable[[Path], Path]]] = {
    "smollm2": smollm2.folder,
    "tiny": tiny.folder,
}


def resolve_model(name: str) -> Path:
    """The folder of a model, given by name or path; a named one is made when it is first used.

    That takes a second for `tiny` and about ten for `smollm2`. Raises EngineUnavailable, which
    says what is missing.
    """
    if name in NAMED:
        return NAMED[name](cache_folder(os.environ))
    folder = Path(name).expanduser()
    if (folder / "config.json").is_file():
        return folder.resolve()
    if folder.is_dir():
        raise EngineUnavailable(f"model folder {folder} holds no config.json, so it is no model")
    known = ", ".join(NAMED)
    raise EngineUnavailable(
        f"unknown model {name!r}: it is none of {known}, and there is no folder {folder}"
    )
