"""A tiny Llama with random weights: a real engine's test model, made on the spot in a second.

Two layers, hidden size 64, a byte-level BPE of 512 tokens and a simple chat template. It talks
nonsense, but always the same: the seed is fixed.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# tokenizers and transformers leave much of what is used here untyped.
# ruff: noqa: PLC0415 - libraries that take seconds to import, or may be missing, wait for their use

from __future__ import annotations

from pathlib import Path
from typing import Final

from model.engine import EngineUnavailable
from model.folders import made_once

NAME: Final = "tiny-llama-1"
"""Name of the folder; it ends in a number to raise when what is made here changes."""

VOCABULARY: Final = 512
CONTEXT_TOKENS: Final = 2048
SPECIAL_TOKENS: Final = ("<|end|>", "<|start|>")

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
_TEXT: Final = (
    "What people ask of a language model: how many, how much, when and why.",
    "The quick brown fox jumps over the lazy dog. 0 1 2 3 4 5 6 7 8 9",
    "Answer the question, then explain in a few words how you found the answer.",
)


def folder(cache: Path) -> Path:
    """The model's folder inside `cache`; made if it is not there yet."""
    return made_once(cache / NAME, _make)


def _make(target: Path) -> None:
    try:
        import torch
        from safetensors.torch import save_file
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as missing:
        raise EngineUnavailable(
            f"the tiny model can't be made: {missing}. `make setup` installs what it needs"
        ) from None
    _save_tokenizer(target)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = LlamaForCausalLM(config).state_dict()
    weights.pop("lm_head.weight")  # the same tensor as the embedding
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(target)


def _save_tokenizer(target: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL_TOKENS[0],
        pad_token=SPECIAL_TOKENS[0],
        model_max_length=CONTEXT_TOKENS,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(target)
