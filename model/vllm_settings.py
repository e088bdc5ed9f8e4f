"""How vLLM is set up: its environment and arguments. Nothing of vLLM is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from autoglm.status import EngineChoice
from model.processor import Plan
from runtime.config import EngineConfig

QUIET: Final = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
}
"""Environment of vLLM and its child processes: few words, no statistics sent, no downloads. What
is set already stays."""

BATCHED_TOKENS_PER_STEP: Final = 2048
"""Prompt tokens that one step may take, so that a long prompt does not hold up the others."""

NOT_INSTALLED: Final = (
    "vLLM is not installed. On a GPU machine: pip install 'autoglm[gpu]'. On a CPU: `make setup`, "
    "or pip install --no-deps -r requirements/cpu-engine.lock after torch==2.13.0"
)


def engine_arguments(config: EngineConfig, plan: Plan | None) -> dict[str, Any]:
    """AsyncEngineArgs by name, without the model; `plan` None on a GPU."""
    arguments: dict[str, Any] = {
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens
        or max(BATCHED_TOKENS_PER_STEP, config.max_num_seqs),
        "max_model_len": config.max_model_len,
        "dtype": plan.dtype if plan else config.dtype,
        "enforce_eager": not config.compile if plan else False,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if plan is not None:
        arguments["kv_cache_memory_bytes"] = plan.kv_cache_bytes
    elif config.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    return arguments


def engine_environment(plan: Plan, environ: Mapping[str, str]) -> dict[str, str]:
    """What vLLM's processes read from their environment on a CPU."""
    made = {"VLLM_CPU_OMP_THREADS_BIND": plan.threads}
    preloaded = environ.get("LD_PRELOAD", "")
    if plan.preload is not None and "omp" not in preloaded:
        made["LD_PRELOAD"] = f"{plan.preload}:{preloaded}".rstrip(":")
    return made


def gpu_choices(config: EngineConfig) -> tuple[EngineChoice, ...]:
    why = "the model's own" if config.dtype == "auto" else "set by you"
    return (EngineChoice("dtype", config.dtype, why),)
