"""What runs fastest on the processor at hand: number format, threads, KV cache, compilation.

`read_processor` looks, `decide` decides: a pure function, so that each rule is tested with the
text of a /proc/cpuinfo. Whatever the configuration names wins over every rule.

The rules follow from tokens/s of SmolLM2 on two cores with AMX (64 slots, GSM8K prompts, 64 tokens
each, medians of 3 or 4 runs that took turns, other programs using part of the machine);
`bench/engine_choices.py` measures them anew:

    number format   bfloat16 698, float32 265. Without AMX it is the other way round: float32
                    208 to 252, bfloat16 169 to 186, on two cores of another machine.
    threads         both cores 698, vLLM's `auto` (one of two) 495, `nobind` 448. `auto` suffers
                    least from other programs: when they take a core, it is the fastest.
    OpenMP          Intel's 843, GNU's 760, from noisy runs: the weakest of these figures.
    compilation     1,024 instead of 760, but loads in 65 s instead of 15.
    slots           128 instead of 64: 1,033 instead of 760.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from autoglm.status import EngineChoice
from runtime.config import EngineConfig

GIB: Final = 2**30
KV_CACHE_BYTES_MAX: Final = 2 * GIB
"""vLLM fills the cache with zeros at the start, so all of it is taken at once. 64 requests of the
packaged model at 700 tokens each fit in it in float32, at 1,400 tokens in bfloat16."""
KV_CACHE_SHARE: Final = 0.25
"""Of the memory that is free; weights, activations and other programs need the rest."""
KV_BLOCK_TOKENS: Final = 128
"""vLLM hands the cache out in blocks of so many tokens on a CPU."""
OWN_CORES_MAX: Final = 4
"""Up to so many cores the engine computes on all of them; on more, vLLM keeps one back."""
_AMX: Final = "amx_bf16"
_BY_YOU: Final = "set by you"


@dataclass(frozen=True)
class Processor:
    """What counts of a machine. `cores`: one CPU number for each physical core we may use."""

    flags: frozenset[str]
    cores: tuple[int, ...]
    free_bytes: int
    openmp: str | None = None
    """Intel's OpenMP library, when it is installed with the engine."""


@dataclass(frozen=True)
class Plan:
    """How to run the engine on a processor. `threads` as VLLM_CPU_OMP_THREADS_BIND takes it."""

    dtype: str
    threads: str
    preload: str | None
    """A library that the engine's processes load before all others."""
    kv_cache_bytes: int
    compile: bool
    choices: tuple[EngineChoice, ...]


def read_processor() -> Processor:
    """The processor this process runs on (Linux)."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    openmp = Path(sys.prefix) / "lib" / "libiomp5.so"
    limits = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
    cgroup = tuple(path.read_text() for path in limits) if all(map(Path.exists, limits)) else None
    return Processor(
        flags=parse_flags(cpuinfo),
        cores=parse_cores(cpuinfo, os.sched_getaffinity(0)),
        free_bytes=parse_free_bytes(Path("/proc/meminfo").read_text(), cgroup),
        openmp=str(openmp) if openmp.exists() else None,
    )


def parse_flags(cpuinfo: str) -> frozenset[str]:
    """The instruction set extensions in the text of /proc/cpuinfo (`Features` on ARM)."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def parse_cores(cpuinfo: str, allowed: Iterable[int]) -> tuple[int, ...]:
    """The first allowed CPU of each physical core, by the text of /proc/cpuinfo.

    Two hyper-threads of one core share its arithmetic units, so one of them is enough. Where the
    text names no cores, every CPU counts as one.
    """
    first: dict[tuple[str, ...], int] = {}
    may = set(allowed)
    for block in cpuinfo.split("\n\n"):
        fields = {
            name.strip(): value.strip()
            for name, _, value in (line.partition(":") for line in block.splitlines())
        }
        cpu = fields.get("processor", "")
        if cpu.isdigit() and int(cpu) in may:
            core = (fields.get("physical id", ""), fields["core id"]) if "core id" in fields else ()
            first.setdefault(core or (cpu,), int(cpu))
    return tuple(sorted(first.values())) or tuple(sorted(may))


def parse_free_bytes(meminfo: str, cgroup: tuple[str, ...] | None) -> int:
    """Memory that can be had without swapping: MemAvailable, or what the control group leaves.

    `cgroup` holds the text of memory.max and memory.current, None where there is none.
    """
    available = next(
        int(line.split()[1]) * 1024
        for line in meminfo.splitlines()
        if line.startswith("MemAvailable:")
    )
    if cgroup is None or not cgroup[0].strip().isdigit():
        return available
    return max(0, min(available, int(cgroup[0]) - int(cgroup[1])))


def decide(processor: Processor, config: EngineConfig, model: Mapping[str, Any]) -> Plan:
    """The fastest way to run `model`, a Hugging Face config.json, on `processor`.

    What `config` sets is kept.
    """
    dtype = _dtype(processor, config)
    threads = _threads(processor, config)
    kv_cache_bytes, kv_cache = _kv_cache(
        processor, config, request_bytes(model, config, dtype.value)
    )
    return Plan(
        dtype=dtype.value,
        threads=threads.value,
        preload=processor.openmp,
        kv_cache_bytes=kv_cache_bytes,
        compile=config.compile,
        choices=(dtype, threads, _openmp(processor), kv_cache, _compile(config)),
    )


def request_bytes(model: Mapping[str, Any], config: EngineConfig, dtype: str) -> int | None:
    """KV cache of one request that fills the context; None when config.json does not tell.

    Keys and values of every layer, in whole blocks, and a block to spare.
    """
    heads = model.get("num_key_value_heads") or model.get("num_attention_heads")
    context = config.max_model_len or model.get("max_position_embeddings")
    layers, head_size = model.get("num_hidden_layers"), model.get("head_dim")
    if head_size is None and "hidden_size" in model and "num_attention_heads" in model:
        head_size = model["hidden_size"] // model["num_attention_heads"]
    if not (heads and context and layers and head_size):
        return None
    tokens = (-(-context // KV_BLOCK_TOKENS) + 1) * KV_BLOCK_TOKENS
    return 2 * layers * heads * head_size * tokens * (4 if dtype == "float32" else 2)


def _dtype(processor: Processor, config: EngineConfig) -> EngineChoice:
    if config.dtype != "auto":
        return EngineChoice("dtype", config.dtype, _BY_YOU)
    if _AMX in processor.flags:
        return EngineChoice("dtype", "bfloat16", "AMX multiplies bfloat16: 2.6 times as fast")
    return EngineChoice("dtype", "float32", "no AMX: float32 is faster than emulated bfloat16")


def _threads(processor: Processor, config: EngineConfig) -> EngineChoice:
    if config.threads != "auto":
        return EngineChoice("threads", config.threads, _BY_YOU)
    if len(processor.cores) > OWN_CORES_MAX:
        return EngineChoice("threads", "auto", f"{len(processor.cores)} cores: vLLM keeps one back")
    cores = ",".join(map(str, processor.cores))
    return EngineChoice("threads", cores, f"all {len(processor.cores)} cores compute")


def _openmp(processor: Processor) -> EngineChoice:
    if processor.openmp is None:
        return EngineChoice("openmp", "gnu", "Intel's is not installed")
    return EngineChoice("openmp", "intel", "a tenth faster than GNU's")


def _kv_cache(
    processor: Processor,
    config: EngineConfig,
    request: int | None,
) -> tuple[int, EngineChoice]:
    if config.kv_cache_gib is not None:
        chosen, why = int(config.kv_cache_gib * GIB), _BY_YOU
    else:
        share = int(KV_CACHE_SHARE * processor.free_bytes)
        chosen, why = share, f"a quarter of the {processor.free_bytes / GIB:.1f} GiB that are free"
        if share > KV_CACHE_BYTES_MAX:
            chosen, why = KV_CACHE_BYTES_MAX, "enough for the slots at usual lengths"
        if request is not None and chosen < request:
            chosen, why = request, "the least: one request that fills the context"
        if request is not None and chosen > config.max_num_seqs * request:
            chosen, why = config.max_num_seqs * request, "all slots can fill the context"
    return chosen, EngineChoice("kv_cache", f"{chosen / GIB:.2f} GiB", why)


def _compile(config: EngineConfig) -> EngineChoice:
    if config.compile:
        return EngineChoice("compile", "on", _BY_YOU)
    return EngineChoice("compile", "off", "loads four times as fast, runs a quarter slower")
