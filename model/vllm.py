"""The real engine: vLLM 0.32, all of it behind this file and the two
beside it, `model.continuing` and `model.vllm_output`.

vLLM promises stability for little of what is needed here (renderers, the client of its core,
AsyncLLM), so nobody else imports it, the version is pinned, and it is imported no earlier than
`load`: that takes seconds and has side effects. What was relied on was read in its source, under
the names `vllm.v1.engine.async_llm`, `vllm.v1.engine.core_client` and `vllm.renderers`.

    vLLM says                                   what it means here
    EngineDeadError                             EngineDead: a new process is needed
    VLLMClientError, bad parameters             RequestFailed invalid_request, permanent
    more prompt tokens than fit                 RequestFailed prompt_too_long, permanent
    GracefulHTTPError (queue limits)            RequestFailed engine_busy
    EngineGenerateError, finish reason error    RequestFailed engine_error
    finish reason abort                         RequestFailed aborted: it is not done
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingImports=false
# vLLM is optional, and large parts of it are untyped.
# ruff: noqa: PLC0415 - see above: nothing of vLLM is imported before load

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from autoglm.types import Message, Sampling
from model.continuing import (
    Rest,
    Tracked,
    detokenizer_of,
    params_continuable,
    remaining_of,
)
from model.engine import (
    Completion,
    EngineDead,
    EngineInfo,
    EngineLoad,
    EngineRequest,
    EngineUnavailable,
    RequestFailed,
)
from model.models import resolve_model
from model.processor import decide, read_processor
from model.vllm_output import Answers, ended_well, kv_usage
from model.vllm_settings import (
    NOT_INSTALLED,
    QUIET,
    engine_arguments,
    engine_environment,
    gpu_choices,
)
from runtime.config import EngineConfig
from runtime.partial import Partial

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


class VllmEngine:
    """model.engine.Engine by vLLM's AsyncLLM."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._engine: AsyncLLM | None = None
        self._context = 0
        """Tokens of prompt and answer together."""
        self._defaults: dict[str, Any] = {}
        """Sampling the model's own generation_config.json asks for."""
        self._by_id: dict[str, Tracked] = {}
        """Running requests that can be continued, by the task's id."""
        self._running = 0
        """Requests given to vLLM and not ended, waiting ones among them."""
        self._prompt_tokens = 0
        self._completion_tokens = 0

    async def load(self) -> EngineInfo:
        """See Engine.load. Blocks the event loop: vLLM's start is synchronous."""
        folder = resolve_model(self._config.model)
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of libraries about each other
                from vllm.config import StructuredOutputsConfig
                from vllm.engine.arg_utils import AsyncEngineArgs
                from vllm.platforms import current_platform
                from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError as missing:
            raise EngineUnavailable(f"{NOT_INSTALLED} ({missing})") from None
        plan = None
        if current_platform.is_cpu():
            model = msgspec.json.decode((folder / "config.json").read_bytes())
            plan = decide(read_processor(), self._config, model)
            os.environ.update(engine_environment(plan, os.environ))
        try:
            # Without freedom for blanks and fields of its own, which a small model writes
            # without end.
            grammars = StructuredOutputsConfig(
                backend="guidance", disable_any_whitespace=True, disable_additional_properties=True
            )
            arguments = AsyncEngineArgs(
                model=str(folder),
                structured_outputs_config=grammars,
                **engine_arguments(self._config, plan),
            )
            self._engine = AsyncLLM.from_engine_args(arguments)
            self._count_tokens(self._engine)
        except ValueError as error:  # of the model or the settings: no second try can help
            reason = _one_line(error).partition(" [type=")[0]  # what follows is pydantic's own
            raise EngineUnavailable(f"vLLM can't run {folder}: {reason}") from error
        self._context = self._engine.model_config.max_model_len
        self._defaults = self._engine.model_config.get_diff_sampling_param()
        return EngineInfo(
            model=self._config.model,
            slots=self._config.max_num_seqs,
            max_model_len=self._context,
            choices=plan.choices if plan else gpu_choices(self._config),
        )

    async def generate(
        self,
        request: EngineRequest,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        """See Engine.generate."""
        from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMServerError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            params = self._sampling(request.sampling, streams=on_text is not None)
            prompt = await self._render(request)
        except (VLLMClientError, ValueError, TypeError) as error:
            raise RequestFailed("invalid_request", _one_line(error), permanent=True) from error
        self._refuse_too_long(len(prompt["prompt_token_ids"]))
        self._prompt_tokens += len(prompt["prompt_token_ids"])
        try:
            return await self._answer(request, prompt, params, on_text)
        except EngineDeadError as error:
            raise EngineDead(_one_line(error)) from error
        except VLLMClientError as error:
            raise RequestFailed("invalid_request", _one_line(error), permanent=True) from error
        except GracefulHTTPError as error:
            raise RequestFailed("engine_busy", _one_line(error), permanent=False) from error
        except VLLMServerError as error:
            raise RequestFailed("engine_error", _one_line(error), permanent=False) from error

    def reading(self) -> EngineLoad:
        return EngineLoad(
            running=self._running,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            kv_usage=kv_usage(self._engine) if self._engine is not None else 0.0,
        )

    def made(self, id: str) -> int:
        return len(self._tokens(self._by_id.get(id)))

    def partial(self, id: str) -> Partial | None:
        """See Engine.partial."""
        tracked = self._by_id.get(id)
        tokens = self._tokens(tracked)
        if tracked is None or not tokens:
            return None
        return Partial(tuple(tokens), prompt_tokens=tracked.prompt_tokens)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None

    def _sampling(self, sampling: Sampling, *, streams: bool) -> SamplingParams:
        """vLLM's parameters; an unset maximum of tokens is the rest of the context, not its 16."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        fields: dict[str, Any] = msgspec.structs.asdict(sampling)
        given = {name: value for name, value in fields.items() if value is not None}
        merged: dict[str, Any] = {**self._defaults, "max_tokens": None, **given}
        merged["stop"] = list(sampling.stop)
        if (schema := merged.pop("json_schema", None)) is not None:
            merged["structured_outputs"] = StructuredOutputsParams(json=schema)
        kind = RequestOutputKind.DELTA if streams else RequestOutputKind.FINAL_ONLY
        return SamplingParams(**merged, output_kind=kind)

    async def _render(self, request: EngineRequest) -> Any:
        """The request's tokens. Their number is not limited here: `generate` can say it better."""
        from vllm.renderers import ChatParams

        renderer = self._live().renderer
        if request.prompt is not None:
            text = request.prompt
        elif getattr(renderer.get_tokenizer(), "chat_template", None) is None:
            text = plain_chat(request.messages)
        else:
            limits = dataclasses.replace(renderer.default_chat_tok_params, max_total_tokens=None)
            conversation: Any = [
                {"role": message.role, "content": message.content} for message in request.messages
            ]
            how = ChatParams(
                chat_template_kwargs={"add_generation_prompt": True, "tokenize": False}
            )
            _, (prompt,) = await renderer.render_chat_async([conversation], how, limits)
            return prompt
        limits = dataclasses.replace(renderer.default_cmpl_tok_params, max_total_tokens=None)
        (prompt,) = await renderer.render_cmpl_async([{"prompt": text}], limits)
        return prompt

    def _refuse_too_long(self, tokens: int) -> None:
        if tokens >= self._context:
            raise RequestFailed(
                "prompt_too_long",
                f"the prompt has {tokens} tokens; the model takes at most {self._context}, "
                "prompt and answer together",
                permanent=True,
            )

    async def _answer(
        self,
        request: EngineRequest,
        prompt: Any,
        params: SamplingParams,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        """Follow one generation to its end. With `on_text` the pieces come one by one."""
        if not params_continuable(params):
            return await self._begin(request, prompt, params, on_text)
        tracked = Tracked(f"{request.id}-{request.attempt}", len(prompt["prompt_token_ids"]))
        self._by_id[request.id] = tracked
        try:
            if request.continued is None:
                return await self._begin(request, prompt, params, on_text)
            rest = tracked.rest = Rest(
                detokenizer_of(self._live().renderer.get_tokenizer(), prompt, params), on_text
            )
            return await self._go_on(request, request.continued.tokens, prompt, params, rest)
        finally:
            if self._by_id.get(request.id) is tracked:
                del self._by_id[request.id]

    async def _go_on(
        self,
        request: EngineRequest,
        before: tuple[int, ...],
        prompt: Any,
        params: SamplingParams,
        rest: Rest,
    ) -> Completion:
        """The same for an answer of which the tokens `before` are there already."""
        ids: list[int] = [*prompt["prompt_token_ids"], *before]
        reason, cached = "length", 0
        rest.take(before)
        left = self._context - len(ids)
        if params.max_tokens is not None:
            left = min(left, params.max_tokens - len(before))
        if left > 0 and not rest.stopped:
            asked: Any = {**prompt, "prompt_token_ids": ids}
            remaining = remaining_of(params, left, len(before))
            outputs = self._live().generate(asked, remaining, f"{request.id}-{request.attempt}")
            self._running += 1
            try:
                async with contextlib.aclosing(outputs):
                    async for last in outputs:
                        (output,) = last.outputs
                        rest.take(output.token_ids, output.finish_reason)
                        cached = last.num_cached_tokens or 0
                        if rest.stopped:
                            break
                        if output.finish_reason is not None:
                            reason = ended_well(output.finish_reason)
            finally:
                self._running -= 1
        tokens = len(prompt["prompt_token_ids"])
        return Completion(
            id=request.id,
            attempt=request.attempt,
            text=rest.text,
            finish_reason="stop" if rest.stopped else reason,
            prompt_tokens=tokens,
            completion_tokens=len(rest.tokens),
            cached_tokens=min(cached, tokens),
            before=len(before),
        )

    def _tokens(self, tracked: Tracked | None) -> list[int]:
        """What vLLM has brought of a request."""
        if tracked is None or self._engine is None:
            return []
        if tracked.rest is not None:
            return tracked.rest.tokens
        processor = self._engine.output_processor
        for internal in processor.external_req_ids.get(tracked.request_id, ()):
            state = processor.request_states.get(internal)
            if state is not None and state.detokenizer is not None:
                return state.detokenizer.output_token_ids
        return []

    async def _begin(
        self,
        request: EngineRequest,
        prompt: Any,
        params: SamplingParams,
        on_text: Callable[[str], None] | None,
    ) -> Completion:
        """From the first token on."""
        answers = Answers(request)
        outputs = self._live().generate(prompt, params, f"{request.id}-{request.attempt}")
        self._running += 1
        try:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    text = answers.take(output)
                    if on_text is not None and text:
                        on_text(text)
        finally:
            self._running -= 1
        return answers.completion()

    def _live(self) -> AsyncLLM:
        if self._engine is None:
            raise EngineDead("the engine is not loaded, or was closed")
        return self._engine

    def _count_tokens(self, engine: AsyncLLM) -> None:
        """Count tokens where all that the engine core yields passes by.

        vLLM's own statistics would tell too, but keeping them seems to cost throughput where the
        engine computes on every core.
        """
        core: Any = engine.engine_core
        receive = core.get_output_async

        async def counted() -> Any:
            outputs = await receive()
            self._completion_tokens += sum(len(each.new_token_ids) for each in outputs.outputs)
            return outputs

        core.get_output_async = counted


def plain_chat(messages: tuple[Message, ...]) -> str:
    """A conversation as plain text, for a model that has no chat template of its own."""
    lines = [f"{message.role}: {message.content}" for message in messages]
    return "\n".join([*lines, "assistant:"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
