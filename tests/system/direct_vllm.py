"""Prompts straight into vLLM, without anything of ours but the tiny model: what to compare with.

Reads `[prompts, max_tokens]` as JSON from stdin, prints the list of answers as JSON.
"""

# pyright: basic
# vLLM is optional, and large parts of it are untyped.

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from vllm import AsyncEngineArgs, SamplingParams
from vllm.renderers import ChatParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from model.models import resolve_model


async def main(prompts: list[str], max_tokens: int) -> list[str]:
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(resolve_model("tiny")),
            dtype="float32",
            max_num_seqs=64,
            enforce_eager=True,
            kv_cache_memory_bytes=2**28,
        )
    )
    sampling = SamplingParams(
        max_tokens=max_tokens, temperature=0, output_kind=RequestOutputKind.FINAL_ONLY
    )

    async def answer(number: int, prompt: str) -> str:
        chat: Any = [{"role": "user", "content": prompt}]
        how = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
        renderer = engine.renderer
        limits = renderer.default_chat_tok_params
        _, (rendered,) = await renderer.render_chat_async([chat], how, limits)
        async for out in engine.generate(rendered, sampling, str(number)):
            last = out
        return last.outputs[0].text

    answers = await asyncio.gather(*(answer(n, prompt) for n, prompt in enumerate(prompts)))
    engine.shutdown()
    return answers


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*json.load(sys.stdin)))))
