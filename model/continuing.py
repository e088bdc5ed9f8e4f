"""The rest of an answer whose beginning was generated before, as if there had been no break.

The engine is asked to go on from prompt and beginning, for numbers of tokens only. They are made
into text here, from the answer's first token on: so a character of which half had come, and a stop
string that began before the break, come out as they would have.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# ruff: noqa: PLC0415 - nothing of vLLM is imported before it is loaded

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

from autoglm.types import Sampling
from model.engine import continuable

if TYPE_CHECKING:
    from vllm import SamplingParams


class Detokenizer(Protocol):
    """vLLM's own for one request (`vllm.v1.engine.detokenizer`), made for the true prompt."""

    @property
    def output_token_ids(self) -> list[int]: ...

    def update(self, new_token_ids: list[int], stop_terminated: bool) -> str | None:
        """Take these in. Returns the stop string that has come, if any."""
        ...

    def get_next_output_text(self, finished: bool, delta: bool) -> str:
        """The text, or with `delta` what is new; less what may become a stop string."""
        ...


class Rest:
    def __init__(self, detokenizer: Detokenizer, on_text: Callable[[str], None] | None) -> None:
        self._detokenizer = detokenizer
        self._on_text = on_text
        self.stopped = False
        """A stop string has come."""

    def take(self, tokens: Sequence[int], finish_reason: str | None = None) -> None:
        """The next tokens; with a reason they are the last."""
        found = self._detokenizer.update(list(tokens), finish_reason == "stop")
        self.stopped = self.stopped or found is not None
        if self._on_text is not None:
            over = self.stopped or finish_reason is not None
            text = self._detokenizer.get_next_output_text(over, True)
            if text:
                self._on_text(text)

    @property
    def tokens(self) -> list[int]:
        return self._detokenizer.output_token_ids

    @property
    def text(self) -> str:
        """All of it, when it is over."""
        return self._detokenizer.get_next_output_text(True, False)


@dataclass(slots=True)
class Tracked:
    """A running request that can be continued."""

    request_id: str
    prompt_tokens: int
    rest: Rest | None = None
    """Its tokens, when it is continued."""


def params_continuable(params: SamplingParams) -> bool:
    """`model.engine.continuable` of what the model's own defaults have been merged into."""
    given = Sampling(
        temperature=params.temperature,
        seed=params.seed,
        presence_penalty=params.presence_penalty,
        frequency_penalty=params.frequency_penalty,
        repetition_penalty=params.repetition_penalty,
        n=params.n,
        logprobs=params.logprobs,
        json_schema=None if params.structured_outputs is None else "",
    )
    return continuable(given)


def detokenizer_of(tokenizer: Any, prompt: Any, params: SamplingParams) -> Detokenizer:
    """vLLM's own for one request, of which it needs no more than this."""
    from vllm.v1.engine.detokenizer import IncrementalDetokenizer

    given: Any = SimpleNamespace(
        request_id="", prompt_token_ids=prompt["prompt_token_ids"], sampling_params=params
    )
    return IncrementalDetokenizer.from_new_request(tokenizer, given)


def remaining_of(params: SamplingParams, left: int, made: int) -> SamplingParams:
    """What is to be said of the rest: stop strings are looked for in the whole text."""
    from vllm.sampling_params import RequestOutputKind

    remaining = params.clone()
    remaining.max_tokens, remaining.min_tokens = left, max(0, params.min_tokens - made)
    remaining.stop, remaining.detokenize = [], False
    remaining.output_kind = RequestOutputKind.DELTA
    return remaining
