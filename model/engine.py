"""What an engine is: the protocol inside the engine host, and the messages to and from it.

    server process                           engine host (child process)
    batcher ─▶ HostedEngine ═ socket pair ═▶ host ─▶ Engine (vllm | simulated)

An engine answers requests one by one and continuously batches them inside. It may fail one
request (`RequestFailed`), fail as a whole (`EngineDead`), hang, or take its process with it: the
parent's end, `model.hosted`, turns each of these into something the batcher can act on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from autoglm.status import EngineChoice
from autoglm.types import Choice, ErrorInfo, Message, Sampling, TokenLogprob
from runtime.partial import Partial

GIVEN_UP: Final = "aborted"
"""The code of a request that was stopped before it was answered, through no fault of its own."""


class EngineRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One generation. `id` is the task's, `attempt` the fence that comes back with the answer."""

    id: str
    attempt: int
    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    sampling: Sampling = Sampling()
    stream: bool = False
    continued: Partial | None = None
    """What an earlier attempt made of the answer: go on from there, if that is possible."""


class Completion(msgspec.Struct, frozen=True, omit_defaults=True):
    """The end of one request: a text with a finish reason, or an `error`.

    Text and tokens are those of the whole answer, whoever made its beginning. `permanent`: the same
    request can never succeed, so it is not worth another attempt.
    """

    id: str
    attempt: int
    text: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    error: ErrorInfo | None = None
    permanent: bool = False
    before: int = 0
    """Of the tokens of the answer, those that were there when this attempt began."""
    partial: Partial | None = None
    """Of what was stopped: how to go on."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """Of the text's tokens, where they were asked for."""
    others: tuple[Choice, ...] = ()
    """The further answers, where several were asked for. Token counts are of all together."""


def continuable(sampling: Sampling) -> bool:
    """Whether an answer goes on from its tokens as if it had never been interrupted.

    A seed says which random numbers come next, and penalties count the tokens made so far: both
    would begin anew. Of several answers, of log probabilities and of a grammar only the end would
    come.
    """
    penalties = (sampling.presence_penalty or 0, sampling.frequency_penalty or 0)
    return (
        (sampling.n or 1) == 1
        and sampling.logprobs is None
        and sampling.json_schema is None
        and (sampling.seed is None or sampling.temperature == 0)
        and not any(penalties)
        and sampling.repetition_penalty in {None, 1}
    )


def blameless(completion: Completion) -> bool:
    """Whether it failed, and that says nothing about the engine."""
    error = completion.error
    return error is not None and (completion.permanent or error.code == GIVEN_UP)


class Progress(msgspec.Struct, frozen=True):
    """New text of a streaming request; `offset` counts characters from the beginning."""

    id: str
    attempt: int
    offset: int
    text: str


class Kept(msgspec.Struct, frozen=True):
    """How far a running request has come: with it another attempt can go on from there."""

    id: str
    attempt: int
    partial: Partial


class EngineInfo(msgspec.Struct, frozen=True):
    """What a loaded engine says of itself. `choices`: what was picked for this machine and why."""

    model: str
    slots: int
    """Requests that run at once: `max_num_seqs`."""
    max_model_len: int
    """Tokens of prompt and answer together that fit."""
    choices: tuple[EngineChoice, ...] = ()


class EngineLoad(msgspec.Struct, frozen=True):
    """A reading of a running engine, taken now and then. Token counts rise from the start."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    kv_usage: float = 0.0
    """Share of the KV cache in use, 0 to 1."""


class RequestFailed(Exception):
    """This request failed, the engine did not. `code` is stable, for programs."""

    def __init__(self, code: str, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent


class EngineDead(Exception):
    """The engine as a whole can answer nothing more; its process is to be replaced."""


class EngineUnavailable(Exception):
    """The engine can't even be loaded: not installed, model missing. Says what to do about it."""


class Engine(Protocol):
    """An engine inside its host process. All methods run on one event loop."""

    async def load(self) -> EngineInfo:
        """Get ready. May take a minute. Raises EngineUnavailable."""
        ...

    async def generate(
        self,
        request: EngineRequest,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        """The answer to `request`; cancelling the call aborts it in the engine.

        `on_text` gets each new piece of text, in order, when the request streams.
        What was `continued` goes on from there, if the engine can do that, and its first piece of
        text is what there was. Raises RequestFailed or EngineDead.
        """
        ...

    def made(self, id: str) -> int:
        """Tokens of the answer to a running request; 0: none yet, or it can't be continued."""
        ...

    def partial(self, id: str) -> Partial | None:
        """What a running request has made so far; None: nothing that could be continued."""
        ...

    def reading(self) -> EngineLoad: ...

    def close(self) -> None:
        """Free everything. May be called at any time after `load` began."""
        ...
