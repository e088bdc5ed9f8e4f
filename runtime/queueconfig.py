"""`queues` and `tenants` in the configuration: who there is, and how each is served."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, cast

import msgspec

from autoglm.degrade import Degrade
from autoglm.errors import ConfigError, InvalidRequest
from autoglm.spec import NAME_CHARS_MAX, control_in
from autoglm.text import one_line
from runtime.configdoc import doc
from runtime.duration import Duration

QUEUES = {"core": 6.0, "normal": 3.0, "background": 1.0}
"""They are there without being configured, and weigh so much."""
Count = Annotated[int, msgspec.Meta(ge=1)]
Weight = Annotated[float, msgspec.Meta(gt=0)]
DEFAULT_TEXT_CHARS_MAX = 16_384


class QueueConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one queue is served. `core`, `normal` and `background` are always there."""

    weight: Annotated[
        Weight | None,
        doc(
            "Its share of the tokens against that of other queues with work. null: 6 for `core`,"
            " 3 for `normal`, 1 for any other."
        ),
    ] = None
    max_running: Annotated[
        Count | None, doc("Tasks of it that run at once. null: as many as there are slots.")
    ] = None
    max_wait: Annotated[
        Duration | None,
        doc(
            "How long a task waits at most, pending, before `overflow` says what becomes of it."
            " null: for ever."
        ),
    ] = None
    overflow: Annotated[
        Literal["wait", "reject", "archive", "refuse_lower"],
        doc(
            "It goes on waiting, ends as expired, is put aside until somebody requeues it, or goes"
            " on waiting while queues of less weight take nothing in."
        ),
    ] = "wait"
    degrade: Annotated[
        Degrade, doc("What becomes of a new task while the breakers of all engines are open.")
    ] = "queue"
    default_text: Annotated[
        str | None, doc("What is recorded as the answer where `degrade` is `default`.")
    ] = None


class TenantConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's share of each queue, and its limits."""

    weight: Annotated[
        Weight, doc("Its share of a queue's tokens against that of other tenants with work.")
    ] = 1
    max_running: Annotated[
        Count | None,
        doc("Tasks of it that run at once, in all queues. null: as many as there are slots."),
    ] = None
    max_pending: Annotated[
        Count | None,
        doc("Tasks of it that wait at most; what does not fit is refused. null: any number."),
    ] = None
    tasks_per_s: Annotated[Weight | None, doc("Tasks a second. null: any number.")] = None
    tokens_per_min: Annotated[
        Count | None,
        doc("Tokens, of prompts and answers, in the last minute. null: any number."),
    ] = None
    over_quota: Annotated[
        Literal["hold", "reject"],
        doc("What becomes of tasks over these two rates: they are taken and wait, or are refused."),
    ] = "hold"

    @property
    def rejects(self) -> bool:
        """Whether work is refused for a rate."""
        rated = self.tasks_per_s is not None or self.tokens_per_min is not None
        return rated and self.over_quota == "reject"


def with_built_in(queues: Mapping[str, QueueConfig]) -> dict[str, QueueConfig]:
    """All the queues there are. Raises ConfigError for one that can't be."""
    for name, queue in queues.items():
        at = f"queues.{one_line(name, 40)}"
        if not 0 < len(name) <= NAME_CHARS_MAX:
            raise ConfigError(f"{at}: a name has from 1 to {NAME_CHARS_MAX} characters", at=at)
        if control_in(name) is not None:
            raise ConfigError(f"{at}: a name holds no control character", at=at)
        if queue.degrade == "default" and queue.default_text is None:
            raise ConfigError(
                f"{at}.default_text is missing: degrade is default", at=f"{at}.degrade"
            )
        if queue.overflow != "wait" and queue.max_wait is None:
            raise ConfigError(
                f"{at}.max_wait is missing: overflow is {queue.overflow}", at=f"{at}.overflow"
            )
        if len(queue.default_text or "") > DEFAULT_TEXT_CHARS_MAX:
            at = f"{at}.default_text"
            raise ConfigError(f"{at}: up to {DEFAULT_TEXT_CHARS_MAX} characters", at=at)
    every = dict.fromkeys(QUEUES, QueueConfig()) | dict(queues)
    return {name: _weighed(name, queue) for name, queue in every.items()}


def _weighed(name: str, queue: QueueConfig) -> QueueConfig:
    if queue.weight is not None:
        return queue
    return msgspec.structs.replace(queue, weight=QUEUES.get(name, 1.0))


def check_known(name: str, queues: Collection[str]) -> None:
    """Raises InvalidRequest for a queue that is neither built in nor configured."""
    if name not in queues:
        near = difflib.get_close_matches(name, queues, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(queues)}"
        raise InvalidRequest(f"no queue {one_line(name, 40)!r}; {hint}")


def lower(name: str, queues: Mapping[str, QueueConfig]) -> list[str]:
    """The queues that weigh less than `name`."""
    weight = queues[name].weight or 1.0
    return [other for other, queue in queues.items() if (queue.weight or 1.0) < weight]


def sections(of: str, named: object) -> dict[str, dict[str, Any]]:
    """What stands in `queues` or `tenants`, by the path of each name. Raises ConfigError."""
    found: dict[str, dict[str, Any]] = {}
    if isinstance(named, dict):
        for name, section in cast("dict[object, object]", named).items():
            path = f"{of}.{one_line(str(name), 40)}"
            if not isinstance(section, dict):
                raise ConfigError(f"{path}: expected a section, such as {path}.weight", at=path)
            found[f"{path}."] = cast("dict[str, Any]", section)
    return found
