"""What is picked for which processor, from the text that Linux describes it with."""

from __future__ import annotations

from typing import Any

import pytest

from model.processor import (
    GIB,
    Plan,
    Processor,
    decide,
    parse_cores,
    parse_flags,
    parse_free_bytes,
    read_processor,
    request_bytes,
)
from model.vllm_settings import engine_environment
from runtime.config import EngineConfig

TWO_CORES_WITH_HYPERTHREADS = """\
processor\t: 0
model name\t: Some Processor
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile

processor\t: 1
physical id\t: 0
core id\t\t: 1
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile

processor\t: 2
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile

processor\t: 3
physical id\t: 0
core id\t\t: 1
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n\nprocessor\t: 1\nFeatures\t: fp asimd bf16\n"
SMOLLM2 = {
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "head_dim": 64,
    "max_position_embeddings": 8192,
}
AMX = frozenset({"avx512f", "avx512_bf16", "amx_bf16", "amx_tile"})


def plan(
    flags: frozenset[str] = AMX,
    cores: tuple[int, ...] = (0, 1),
    free_gib: float = 16,
    model: dict[str, Any] | None = None,
    **config: Any,
) -> Plan:
    processor = Processor(flags, cores, int(free_gib * GIB))
    return decide(processor, EngineConfig(**config), model or SMOLLM2)


def why(made: Plan, name: str) -> str:
    return next(choice.why for choice in made.choices if choice.name == name)


def test_with_amx_the_number_format_is_bfloat16() -> None:
    made = plan(parse_flags(TWO_CORES_WITH_HYPERTHREADS))
    assert made.dtype == "bfloat16"
    assert "AMX" in why(made, "dtype")


def test_without_amx_it_is_float32_even_with_avx512_bf16() -> None:
    assert plan(frozenset({"avx512f", "avx512_bf16"})).dtype == "float32"


def test_one_thread_for_each_physical_core_we_may_use() -> None:
    assert parse_cores(TWO_CORES_WITH_HYPERTHREADS, {0, 1, 2, 3}) == (0, 1)
    assert parse_cores(TWO_CORES_WITH_HYPERTHREADS, {1, 2, 3}) == (1, 2)
    assert parse_cores(TWO_CORES_WITH_HYPERTHREADS, {3}) == (3,)


def test_cpus_without_core_numbers_count_one_each() -> None:
    assert parse_cores(ARM, {0, 1}) == (0, 1)
    assert parse_flags(ARM) == {"fp", "asimd", "bf16"}


def test_few_cores_all_compute_and_of_many_vllm_keeps_one_back() -> None:
    assert plan(cores=(0, 2)).threads == "0,2"
    assert plan(cores=tuple(range(16))).threads == "auto"


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ({"dtype": "float16"}, "dtype", "float16"),
        ({"threads": "nobind"}, "threads", "nobind"),
        ({"kv_cache_gib": 1.5}, "kv_cache", "1.50 GiB"),
        ({"compile": True}, "compile", "on"),
    ],
)
def test_what_the_configuration_sets_is_kept_and_said_so(
    setting: dict[str, Any], name: str, value: str
) -> None:
    choice = next(choice for choice in plan(**setting).choices if choice.name == name)
    assert (choice.value, choice.why) == (value, "set by you")


def test_the_kv_cache_takes_a_quarter_of_the_free_memory_at_most() -> None:
    assert plan(free_gib=16).kv_cache_bytes == 2 * GIB
    assert plan(free_gib=4).kv_cache_bytes == GIB


def test_the_kv_cache_holds_at_least_one_full_request() -> None:
    request = request_bytes(SMOLLM2, EngineConfig(), "bfloat16")
    assert request == 2 * 30 * 3 * 64 * 2 * (8192 + 128)
    assert plan(free_gib=0.5).kv_cache_bytes == request


def test_the_kv_cache_is_no_larger_than_all_slots_can_fill() -> None:
    small = SMOLLM2 | {"num_hidden_layers": 1, "max_position_embeddings": 128}
    assert plan(model=small, max_num_seqs=2).kv_cache_bytes == 2 * (2 * 3 * 64 * 2 * 256)


def test_a_model_that_does_not_tell_its_sizes_gets_the_usual_cache() -> None:
    assert plan(model={"model_type": "unheard of"}).kv_cache_bytes == 2 * GIB


def test_free_memory_is_what_the_control_group_leaves() -> None:
    meminfo = "MemTotal:  200 kB\nMemFree:  50 kB\nMemAvailable:  100 kB\n"
    assert parse_free_bytes(meminfo, None) == 102_400
    assert parse_free_bytes(meminfo, ("max\n", "9\n")) == 102_400
    assert parse_free_bytes(meminfo, ("5000\n", "2000\n")) == 3000
    assert parse_free_bytes(meminfo, ("5000\n", "6000\n")) == 0


def test_this_machine_can_be_read() -> None:
    processor = read_processor()
    assert processor.flags
    assert processor.cores
    assert processor.free_bytes > 0


def test_intels_openmp_is_loaded_where_it_is_installed() -> None:
    processor = Processor(AMX, (0, 1), GIB, openmp="/lib/libiomp5.so")
    made = decide(processor, EngineConfig(), SMOLLM2)
    assert made.preload == "/lib/libiomp5.so"
    assert plan().preload is None
    assert engine_environment(made, {"LD_PRELOAD": "/a.so"}) == {
        "VLLM_CPU_OMP_THREADS_BIND": "0,1",
        "LD_PRELOAD": "/lib/libiomp5.so:/a.so",
    }
    assert "LD_PRELOAD" not in engine_environment(made, {"LD_PRELOAD": "/lib/libgomp.so.1"})
