"""One way of answering a batch file with vLLM, in a process of its own: a leg of engine_overhead.

    engine_leg.py direct IN [setting…]            AsyncLLM, with autoglm's settings
    engine_leg.py run_batch IN [setting…]         vLLM's own batch runner, with the same settings
    engine_leg.py run_batch_defaults IN           vLLM's own batch runner, with its defaults

A setting is `engine.key=value`, as autoglm's --set. The engine is loaded once; then each line on
stdin runs the file: `all` at once, or the first N one by one for `serial N`. Each answers with a
line of JSON on stdout: seconds and tokens. So a run's time holds no loading, of either engine.
"""

# pyright: basic
# This is vLLM as it stands, so that autoglm's adapter is not compared with itself.

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from model.models import resolve_model
from model.processor import decide, read_processor
from model.vllm_settings import QUIET, engine_arguments, engine_environment
from runtime.configload import load
from runtime.process import die_with

KV_CACHE_GIB_OF_DEFAULTS = "1"
"""vLLM's default is most of the machine's memory, which the other legs need; no leg fills 1 GiB."""


def settings(arguments: list[str]) -> dict:
    """AsyncEngineArgs as autoglm would set them, the environment too."""
    config = load(settings=arguments).engine
    folder = resolve_model(config.model)
    plan = decide(read_processor(), config, json.loads((folder / "config.json").read_text()))
    os.environ.update(engine_environment(plan, os.environ))
    return {"model": str(folder), **engine_arguments(config, plan)}


async def direct(source: Path, arguments: dict) -> None:
    from vllm import AsyncEngineArgs, SamplingParams
    from vllm.renderers import ChatParams
    from vllm.sampling_params import RequestOutputKind
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
    renderer = engine.renderer
    chat = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
    lines = [json.loads(line)["body"] for line in source.read_text().splitlines()]

    async def answer(body: dict) -> int:
        _, (prompt,) = await renderer.render_chat_async(
            [body["messages"]], chat, renderer.default_chat_tok_params
        )
        params = SamplingParams(
            max_tokens=body["max_tokens"],
            temperature=body["temperature"],
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        tokens = 0
        async for output in engine.generate(prompt, params, f"{time.monotonic_ns()}-{id(body)}"):
            tokens += len(output.outputs[0].token_ids)
        return tokens

    async def run(command: str, count: str = "") -> int:
        if command == "serial":
            return sum([await answer(body) for body in lines[: int(count)]])
        return sum(await asyncio.gather(*map(answer, lines)))

    await obey(run)
    engine.shutdown()


async def run_batch(source: Path, arguments: dict | None) -> None:
    from vllm.entrypoints.launchers import run_batch as runner
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.usage.usage_lib import UsageContext

    folder = tempfile.mkdtemp()
    target = Path(folder) / "out.jsonl"
    sys.argv = ["run_batch", "-i", str(source), "-o", str(target), "--served-model-name", "smollm2"]
    if arguments is None:
        os.environ["VLLM_CPU_KVCACHE_SPACE"] = KV_CACHE_GIB_OF_DEFAULTS
        sys.argv += ["--model", str(resolve_model("smollm2"))]
    else:
        sys.argv += flags(arguments)
    options = runner.parse_args()
    assert options is not None

    async with build_async_engine_client(
        options, usage_context=UsageContext.OPENAI_BATCH_RUNNER
    ) as client:

        async def run(*_: str) -> int:
            await runner.run_batch(client, options)
            answers = [json.loads(line) for line in target.read_text().splitlines()]
            bodies = [answer["response"]["body"] for answer in answers]
            return sum(body["usage"]["completion_tokens"] for body in bodies)

        await obey(run)


def flags(arguments: dict) -> list[str]:
    """AsyncEngineArgs as options of vLLM's command line."""
    made: list[str] = []
    for name, value in arguments.items():
        option = f"--{name.replace('_', '-')}"
        if value is False:
            made.append(option.replace("--", "--no-", 1))
        elif value is not None:
            made += [option] if value is True else [option, str(value)]
    return made


async def obey(run) -> None:
    """Run what stdin says, and tell how long it took."""
    loop = asyncio.get_running_loop()
    say({"ready": True})
    while words := (await loop.run_in_executor(None, sys.stdin.readline)).split():
        began = time.perf_counter()
        tokens = await run(*words)
        say({"seconds": time.perf_counter() - began, "tokens": tokens})


def say(what: dict) -> None:
    print(json.dumps(what), file=ANSWERS, flush=True)


if __name__ == "__mp_main__":
    die_with(os.getppid())  # this is vLLM's EngineCore, which would outlive a leg that is killed
elif __name__ == "__main__":
    ANSWERS = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    kind, file, *given = sys.argv[1:]
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if kind == "direct":
        asyncio.run(direct(Path(file), settings(given)))
    else:
        asyncio.run(
            run_batch(Path(file), None if kind == "run_batch_defaults" else settings(given))
        )
    os._exit(0)  # vLLM leaves threads behind
