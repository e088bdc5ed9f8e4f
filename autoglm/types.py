"""The nouns of autoglm: what a task is, the states it passes through, what an answer holds.

These structs are what people import, what travels on the wire and what `--json` prints, so a
field is only ever added, never renamed. Times are Unix milliseconds, durations seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from autoglm.degrade import Degraded
from autoglm.graph import AfterFailure


class TaskState(StrEnum):
    """Where a task stands. `runtime.store.transitions` says which change may follow which."""

    SCHEDULED = "scheduled"  # waits for a point in time
    BLOCKED = "blocked"  # waits for other tasks
    PAUSED = "paused"  # somebody stopped it before it ran
    ARCHIVED = "archived"  # waited too long for its queue: put aside until it is requeued
    PENDING = "pending"  # ready: the scheduler may take it
    RUNNING = "running"  # claimed by a batcher
    RETRYING = "retrying"  # failed, waits out its back-off
    SUCCEEDED = "succeeded"
    DEAD = "dead"  # failed for good: a dead letter
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def ended(self) -> bool:
        return self in _ENDED

    @classmethod
    def parse(cls, text: str) -> TaskState:
        """The state a person means: any case, and the names other systems use.

        Raises ValueError with the names there are.
        """
        name = text.strip().lower()
        try:
            return cls(_ALIASES.get(name, name))
        except ValueError:
            known = ", ".join(state.value for state in cls)
            raise ValueError(f"no task state {text!r}; there are: {known}") from None


_ENDED = frozenset(
    {TaskState.SUCCEEDED, TaskState.DEAD, TaskState.CANCELLED, TaskState.EXPIRED},
)
_ALIASES = {
    "processing": "running",
    "success": "succeeded",
    "failed": "dead",
    "canceled": "cancelled",
    "queued": "pending",
}

PRIORITY_MOST_URGENT = 0
PRIORITY_LEAST_URGENT = 9
PRIORITY_DEFAULT = 5
QUEUE_DEFAULT = "normal"


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation; `content` is text."""

    role: str
    content: str


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How tokens are chosen. None leaves it to the model's own generation defaults.

    `max_tokens` None means until the end of text or the full context.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool = False
    n: int | None = None
    """How many answers; None: one. Each of several takes a slot of the engine."""
    logprobs: int | None = None
    """Log probabilities of the answer's tokens, with this many likely ones for each."""
    json_schema: str | None = None
    """JSON text of the schema that the answer, JSON too, has to follow."""


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task as it is handed in. Exactly one of `messages` and `prompt` is given.

    `messages` go through the model's chat template; `prompt` is completed as it stands.
    `id` is minted by the client, so that handing it in twice is the same as once.
    """

    id: str
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    tenant: str = "default"
    queue: str | None = None
    """None: what the server's rules say of the kind, or `normal`."""
    priority: int | None = None
    """None: what the server's rules say, or 5."""
    kind: str | None = None
    key: str | None = None
    """Unique per tenant: same key and same content is the same task, other content a conflict."""
    after: tuple[str, ...] = ()
    """Ids of tasks that must succeed first, or, with `after_failure` run, end in any way."""
    after_failure: AfterFailure = "cancel"
    deadline_at: int | None = None
    """Soft: moves the task forward as it draws near."""
    expires_at: int | None = None
    """Hard: a task that has not ended by then ends as `expired`."""
    stream: bool = False
    """Chunks are wanted while it runs."""
    max_attempts: int | None = None
    """Failures after which it is dead; None: the server's `retry.max_attempts`."""
    attempt_timeout_s: float | None = None
    """How long one attempt may take; None: the server's `retry.attempt_timeout_s`."""
    weight: float | None = None
    """What it is worth to its business, 0 to 10: for the rules alone."""
    factors: dict[str, float] = {}
    """Numbers from 0 to 10, by the names that the server's rules give them."""


class ErrorInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why something failed: `code` is stable and for programs, `message` is for people."""

    code: str
    message: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens that one answer took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens the engine did not compute anew, thanks to a shared prefix."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Task(msgspec.Struct, frozen=True):
    """A task as the server knows it."""

    id: str
    state: TaskState
    tenant: str = "default"
    queue: str = "normal"
    priority: int = PRIORITY_DEFAULT
    kind: str | None = None
    key: str | None = None
    job: str | None = None
    attempt: int = 0
    """Rises at every dispatch; a fence against late writers, not a count of failures."""
    failures: int = 0
    """Errors that were the task's own."""
    created_at: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    deadline_at: int | None = None
    expires_at: int | None = None
    error: ErrorInfo | None = None
    degraded: Degraded | None = None
    """How it was answered without an engine; None: it was not."""
    after_failure: AfterFailure | None = None
    """Of a task that was handed in with `after`."""
    inherited_priority: int | None = None
    """Of a more urgent task that waits for it: it runs as if this were its own."""
    waits_for: tuple[str, ...] = ()
    """The first tasks that it is blocked by."""
    version: int = 0
    """Another number after every change of it: what `edit` can insist on."""


class Likely(msgspec.Struct, frozen=True):
    """A token that might have stood at a place, and the natural logarithm of its probability.

    `LOGPROB_LEAST` stands for whatever is less likely than that.
    """

    token: str
    logprob: float


class TokenLogprob(Likely, frozen=True, omit_defaults=True):
    """One token of an answer, and the likeliest ones at its place, the likeliest first."""

    top: tuple[Likely, ...] = ()


LOGPROB_LEAST = -9999.0
"""As OpenAI has it: JSON knows no infinity."""


class Choice(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several answers to the same prompt. `logprobs` None: they were not asked for."""

    text: str
    finish_reason: str
    logprobs: tuple[TokenLogprob, ...] | None = None


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the model said. `finish_reason` is `stop` or `length`."""

    text: str
    finish_reason: str
    usage: Usage
    degraded: Degraded | None = None
    """As its task says."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    others: tuple[Choice, ...] = ()
    """The further answers, where `n` asked for more than one."""


class Answer(msgspec.Struct, frozen=True):
    """A task with its recorded result, when it has one."""

    task: Task
    result: Output | None = None


class Event(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename={"from_state": "from", "to_state": "to"},
):
    """One transition of one task, as the ordered event log holds it.

    `cost` is the tokens (prompt + completion) of the attempt that the transition ends.
    """

    seq: int
    task: str
    tenant: str
    from_state: TaskState | None
    to_state: TaskState
    attempt: int
    at: int
    cost: int
    by: str | None = None
    """The user who did it, where a person did; left out otherwise."""


def to_json(value: Any) -> bytes:
    """One line of JSON, UTF-8, without a newline."""
    return msgspec.json.encode(value)
