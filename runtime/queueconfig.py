"""`queues` in the configuration: the queues there are, and how each is served."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from autoglm.degrade import Degrade
from autoglm.errors import ConfigError, InvalidRequest
from autoglm.spec import NAME_CHARS_MAX
from autoglm.text import one_line

QUEUES = ("core", "normal", "background")
"""They are there without being configured."""
DEFAULT_TEXT_CHARS_MAX = 16_384
_LATER = {"weight", "max_running", "max_wait", "overflow"}


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`queues.NAME`: how one queue is served."""

    degrade: Degrade = "queue"
    """What becomes of a new task while the breakers of all engines are open."""
    default_text: str | None = None
    """What is recorded as the answer where `degrade` is `default`."""


def with_built_in(queues: Mapping[str, QueueConfig]) -> dict[str, QueueConfig]:
    """All the queues there are. Raises ConfigError for one that can't be."""
    for name, queue in queues.items():
        where = f"queues.{one_line(name, 40)}"
        if not 0 < len(name) <= NAME_CHARS_MAX:
            raise ConfigError(f"{where}: a name has from 1 to {NAME_CHARS_MAX} characters")
        if queue.degrade == "default" and queue.default_text is None:
            raise ConfigError(f"{where}.default_text is missing: degrade is default")
        if len(queue.default_text or "") > DEFAULT_TEXT_CHARS_MAX:
            raise ConfigError(f"{where}.default_text: up to {DEFAULT_TEXT_CHARS_MAX} characters")
    return dict.fromkeys(QUEUES, QueueConfig()) | dict(queues)


def check_known(name: str, queues: Collection[str]) -> None:
    """Raises InvalidRequest for a queue that is neither built in nor configured."""
    if name not in queues:
        near = difflib.get_close_matches(name, queues, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(queues)}"
        raise InvalidRequest(f"no queue {one_line(name, 40)!r}; {hint}")


def sections(queues: object) -> dict[str, dict[str, Any]]:
    """What stands in `queues`, by each queue's path. Raises ConfigError for what comes later."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(queues, dict):
        for name, section in cast("dict[object, object]", queues).items():
            path = f"queues.{one_line(str(name), 40)}"
            if not isinstance(section, dict):
                raise ConfigError(f"{path}: expected a section, such as {path}.degrade")
            found[f"{path}."] = cast("dict[str, Any]", section)
            if later := sorted(_LATER & section.keys()):
                raise ConfigError(f"{path}.{later[0]} is not available in this version yet")
    return found
