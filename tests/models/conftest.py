"""A tiny random Llama as a GGUF file, written as llama.cpp's own converter writes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "1 2"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class TinyModel(NamedTuple):
    gguf: Path
    model: Any
    """The LlamaForCausalLM from which the file was written."""


@pytest.fixture(scope="session")
def tiny_tokens() -> list[str]:
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*SPECIAL, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]


@pytest.fixture(scope="session")
def tiny_llama(tiny_tokens: list[str]) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tiny_tokens),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        max_position_embeddings=128,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(scope="session")
def write_gguf(tiny_llama: Any, tiny_tokens: list[str]) -> Callable[..., Path]:
    def write(
        path: Path, *, architecture: str = "llama", pre: str = "smollm", extra: str | None = None
    ) -> Path:
        return _write(path, tiny_llama, tiny_tokens, architecture, pre, extra)

    return write


@pytest.fixture(scope="session")
def tiny(
    write_gguf: Callable[..., Path], tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory
) -> TinyModel:
    return TinyModel(write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf"), tiny_llama)


def _write(path: Path, model: Any, tokens: list[str], architecture: str, pre: str, extra: str | None) -> Path:
    import numpy
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    _write_tokenizer(writer, tokens, pre)
    for name, values in _tensors(model):
        writer.add_tensor(name, values)
    if extra:
        writer.add_tensor(extra, numpy.zeros(4, numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: Any, tokens: list[str], pre: str) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)


def _tensors(model: Any) -> list[tuple[str, Any]]:
    config, weights = model.config, model.state_dict()
    tensors = [
        ("token_embd.weight", weights["model.embed_tokens.weight"].numpy()),
        ("output_norm.weight", weights["model.norm.weight"].numpy()),
    ]
    names = {
        "attn_norm": "input_layernorm",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}"
        for ours, theirs in names.items():
            tensors.append((f"blk.{layer}.{ours}.weight", weights[f"{prefix}.{theirs}.weight"].numpy()))
        for part, heads in (("q", config.num_attention_heads), ("k", config.num_key_value_heads)):
            rows = weights[f"{prefix}.self_attn.{part}_proj.weight"].numpy()
            tensors.append((f"blk.{layer}.attn_{part}.weight", _pairs_side_by_side(rows, heads)))
    return tensors


def _pairs_side_by_side(rows: Any, heads: int) -> Any:
    """llama.cpp's order of q's and k's rows."""
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, rows.shape[1])
    return halves.swapaxes(1, 2).reshape(rows.shape).copy()
