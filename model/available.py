"""Whether an engine can be loaded at all, as far as a glance can tell. Loads nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from model.engine import EngineUnavailable
from model.models import NAMED
from model.vllm_settings import NOT_INSTALLED
from runtime.config import EngineConfig
from runtime.ourselves import in_archive

_NOT_BESIDE = (
    f"{sys.executable} has no vLLM, which the archive takes from its Python: run it with one that"
    " has it, as in `venv/bin/python autoglm serve`, or give --engine simulated"
)


def check_available(config: EngineConfig) -> None:
    """Raises EngineUnavailable, which says what is missing and what to do about it."""
    if config.kind == "simulated":
        return
    if config.model not in NAMED:
        folder = Path(config.model).expanduser()
        if not folder.is_dir():
            raise EngineUnavailable(
                f"model {config.model}: no such folder; the named models are {', '.join(NAMED)}"
            )
        if not (folder / "config.json").is_file():
            raise EngineUnavailable(f"model folder {folder} holds no config.json: it is no model")
    if importlib.util.find_spec("vllm") is None:
        raise EngineUnavailable(_NOT_BESIDE if in_archive() else NOT_INSTALLED)
