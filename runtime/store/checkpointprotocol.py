"""What can be asked of the store about answers that are not complete."""

from __future__ import annotations

import msgspec

from runtime.partial import Partial
from runtime.store.protocol import Write


class Checkpoint(msgspec.Struct, frozen=True):
    """How far a running task has come, if `attempt` is still the current."""

    seq: int
    attempt: int
    partial: Partial


class SaveCheckpoints(Write, frozen=True):
    """Result: `int`, how many were saved; late writers are passed over."""

    checkpoints: tuple[Checkpoint, ...]
