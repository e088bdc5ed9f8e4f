"""What a dead letter is: a task that failed for good, why, and what it asks for.

The structs travel on the wire and are what `autoglm dead list --json` and `dead show --json` print:
a field is only ever added. Times are Unix milliseconds.
"""

from __future__ import annotations

import msgspec

from autoglm.types import Message, Sampling


class Content(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a task asks for. Exactly one of `messages` and `prompt` is given."""

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()


class Failure(msgspec.Struct, frozen=True):
    """What went wrong in attempt `attempt`, at `at`."""

    attempt: int
    at: int
    code: str
    message: str


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter in short: long texts are cut to their beginning."""

    message_id: str
    """The task's id."""
    reason: str
    """The code of the last error: stable, for programs."""
    error: str
    """Its message: for people."""
    tenant: str
    queue: str
    kind: str | None
    key: str | None
    job: str | None
    attempt: int
    failures: int
    created_at: int
    died_at: int
    text: str
    """How its last message, or its prompt, begins."""


class DeadLetterInFull(DeadLetter, frozen=True, kw_only=True):
    """A dead letter with all that is known of it."""

    content: Content
    errors: tuple[Failure, ...] = ()
    """Of every attempt, those before a retry included, oldest first; the newest 1,000."""
    original: Content | None = None
    """What was handed in, when it has been edited since (and both fit into one reply)."""
