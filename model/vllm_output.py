"""What vLLM gives out for one request, put together: texts, log probabilities, how each ended."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# vLLM is optional, and large parts of it are untyped.

from __future__ import annotations

from typing import TYPE_CHECKING

from autoglm.types import LOGPROB_LEAST, Choice, Likely, TokenLogprob
from model.engine import GIVEN_UP, Completion, EngineRequest, RequestFailed

if TYPE_CHECKING:
    from vllm.logprobs import Logprob
    from vllm.outputs import CompletionOutput, RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM


def ended_well(reason: str | None) -> str:
    """`stop` or `length`; raises RequestFailed for anything else, which is no answer."""
    if reason in {"stop", "length"}:
        return reason
    if reason == "abort":
        raise RequestFailed(GIVEN_UP, "the engine aborted the request", permanent=False)
    raise RequestFailed("engine_error", f"the engine ended with {reason!r}", permanent=False)


class _Answer:
    """One of the answers to a prompt, as far as it has come."""

    def __init__(self) -> None:
        self.tokens = 0
        self.finish_reason: str | None = None
        self._pieces: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def take(self, output: CompletionOutput, likely: int | None) -> None:
        self.tokens += len(output.token_ids)
        self.finish_reason = output.finish_reason
        self._pieces.append(output.text)
        if likely is not None:
            places = zip(output.token_ids, output.logprobs or (), strict=True)
            self._logprobs += [_logprob(token, place, likely) for token, place in places]

    def choice(self, likely: int | None) -> Choice:
        """Raises RequestFailed when it is no answer."""
        reason = ended_well(self.finish_reason)
        logprobs = None if likely is None else tuple(self._logprobs)
        return Choice("".join(self._pieces), reason, logprobs)


class Answers:
    """All answers of one request. vLLM gives pieces of them, or all of them at once."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._likely = request.sampling.logprobs
        self._answers = [_Answer() for _ in range(request.sampling.n or 1)]
        self._last: RequestOutput | None = None

    def take(self, given: RequestOutput) -> str:
        """Add what is new; the new text, of the first answer."""
        self._last = given
        for output in given.outputs:
            self._answers[output.index].take(output, self._likely)
        return "".join(output.text for output in given.outputs if output.index == 0)

    def completion(self) -> Completion:
        """All of it. Raises RequestFailed when some of it is no answer."""
        last = self._last
        assert last is not None, "vLLM ended a generation without a word"
        first, *others = (answer.choice(self._likely) for answer in self._answers)
        return Completion(
            id=self._request.id,
            attempt=self._request.attempt,
            text=first.text,
            finish_reason=first.finish_reason,
            prompt_tokens=len(last.prompt_token_ids or ()),
            completion_tokens=sum(answer.tokens for answer in self._answers),
            cached_tokens=last.num_cached_tokens or 0,
            logprobs=first.logprobs,
            others=tuple(others),
        )


def kv_usage(engine: AsyncLLM) -> float:
    """About how much of the KV cache what was given to vLLM takes, 0 to 1.

    Counted from the tokens of each request, as vLLM's own figure comes only with its statistics,
    which are off: a beginning that several share counts for each.
    """
    cache = engine.vllm_config.cache_config
    if not cache.num_gpu_blocks or not cache.block_size:
        return 0.0
    blocks = 0
    for state in engine.output_processor.request_states.values():
        made = len(state.detokenizer.output_token_ids) if state.detokenizer else 0
        blocks += -(-(state.prompt_len + made) // cache.block_size)
    return min(1.0, blocks / cache.num_gpu_blocks)


def _logprob(token: int, place: dict[int, Logprob] | None, likely: int) -> TokenLogprob:
    """vLLM adds the token that was chosen to the likely ones, wherever it ranks."""
    assert place is not None, "vLLM gave no log probabilities of a token of its own"
    ranked = sorted(place.values(), key=lambda each: -each.logprob)[:likely]
    chosen = _named(place[token])
    return TokenLogprob(chosen.token, chosen.logprob, tuple(map(_named, ranked)))


def _named(logprob: Logprob) -> Likely:
    return Likely(logprob.decoded_token or "", max(logprob.logprob, LOGPROB_LEAST))
