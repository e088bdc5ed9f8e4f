"""What a task says of itself, or what holds where it says nothing and no rule does."""

from __future__ import annotations

from autoglm.types import PRIORITY_DEFAULT, QUEUE_DEFAULT, TaskSpec


def priority_of(spec: TaskSpec) -> int:
    return PRIORITY_DEFAULT if spec.priority is None else spec.priority


def queue_of(spec: TaskSpec) -> str:
    return QUEUE_DEFAULT if spec.queue is None else spec.queue
