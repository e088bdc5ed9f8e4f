"""What can be said of an engine before it is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from model.available import check_available
from model.engine import EngineUnavailable
from runtime.config import EngineConfig


def test_the_simulated_engine_is_always_available() -> None:
    check_available(EngineConfig(kind="simulated", model="whatever"))


def test_a_missing_vllm_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(_name: str) -> None:
        return None

    monkeypatch.setattr(importlib.util, "find_spec", nothing_found)
    with pytest.raises(EngineUnavailable, match=r"make setup.*cpu-engine\.lock"):
        check_available(EngineConfig(model="tiny"))


def test_an_unknown_model_is_told_with_the_known_ones() -> None:
    with pytest.raises(EngineUnavailable, match="smollm2, tiny"):
        check_available(EngineConfig(model="glm-large"))


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"config\.json"):
        check_available(EngineConfig(model=str(tmp_path)))
