"""Runs a GGUF file in our own decoder, where llama.cpp is not installed: all it knows is in the file.

Rotary base, sizes, epsilon, scaling factors and weights come from the file's metadata and tensors, not from
the model that it was made from. So what was written wrongly is noticed, though not what llama.cpp alone does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...config.specs import LoraGroup
from ...models.attention_heads import Heads
from ...models.decoder_families import FAMILIES, PLAIN
from ...models.gguf_llama import IN_LAYER, TOP_LEVEL, half_rotation
from ...untrusted import short_name
from ..loop.batch import Segments
from .decoder import PackedDecoder
from .decoder_config import DecoderConfig
from .load_weights import destinations, spread_qk_norms
from .rotary import Rotary

PERMUTED = ("llama", "smollm3")
ARCHITECTURES = (*PERMUTED, "qwen2", "qwen3")
NO_ROPE_EVERY = 4  # layers of SmolLM3
NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}


Logits = NDArray[np.float32]


def decoder_of_gguf(path: Path) -> Callable[[list[int]], Logits] | str:
    """What gives a row's logits, (tokens, vocabulary), by the file; or why there is none."""
    reader: Any = gguf.GGUFReader(path)
    metadata = {
        field.name: field.contents()
        for field in reader.fields.values()
        if field.types[0] is not gguf.GGUFValueType.ARRAY
    }
    name = str(metadata["general.architecture"])
    if name not in ARCHITECTURES:
        return f"our own decoder has no {short_name(name)} models"
    scaling = metadata.get(f"{name}.rope.scaling.type", "none")
    if scaling not in ("none", "linear"):
        return f"our own decoder reads no {short_name(scaling)} scaling from a file"
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    decoder = PackedDecoder(
        _config(name, metadata, tensors), LoraGroup(r=1), torch.float32, torch.device("cpu")
    )
    _load(decoder, name, tensors)
    return lambda row: _logits(decoder, row)


@dataclass(frozen=True)
class _OneRow:
    input_ids: Tensor
    position_ids: Tensor
    segments: Segments


def _logits(decoder: PackedDecoder, row: list[int]) -> Logits:
    count = len(row)
    borders = torch.tensor([0, count], dtype=torch.int32)
    inputs = _OneRow(torch.tensor(row), torch.arange(count), Segments((count,), borders, count))
    with torch.no_grad():
        hidden, _, _ = decoder.forward_keeping(inputs, "everything")
        return decoder.logits(hidden).numpy()


def _config(name: str, metadata: dict[str, Any], tensors: dict[str, Any]) -> DecoderConfig:
    def of(key: str) -> Any:
        return metadata[f"{name}.{key}"]

    layers, heads = of("block_count"), of("attention.head_count")
    head_dim = metadata.get(f"{name}.attention.key_length", of("embedding_length") // heads)
    every = NO_ROPE_EVERY if name == "smollm3" else layers + 1
    rotary = Rotary(_frequencies(name, metadata, tensors, head_dim), 1.0)
    return DecoderConfig(
        family=FAMILIES[name],
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=of("embedding_length"),
        heads=(Heads(heads, of("attention.head_count_kv"), head_dim),) * layers,
        widths=(of("feed_forward_length"),) * layers,
        norm_eps=of("attention.layer_norm_rms_epsilon"),
        tie_word_embeddings="output.weight" not in tensors,
        qkv_bias="blk.0.attn_q.bias" in tensors,
        o_proj_bias="blk.0.attn_output.bias" in tensors,
        mlp_bias="blk.0.ffn_gate.bias" in tensors,
        windows=(None,) * layers,
        rotations=(rotary, Rotary(torch.zeros_like(rotary.inverse_frequencies), 1.0)),
        layer_rotations=tuple(int(layer % every == every - 1) for layer in range(layers)),
        place=PLAIN,
        activation="silu",
        attention_scale=head_dim**-0.5,
    )


def _frequencies(name: str, metadata: dict[str, Any], tensors: dict[str, Any], head_dim: int) -> Tensor:
    """θ^(-2i/d), divided by the file's factors, (head_dim / 2,)."""
    base = metadata.get(f"{name}.rope.freq_base", 10_000.0)
    frequencies = base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    factors = tensors.get("rope_freqs.weight")
    if factors is not None:
        frequencies /= torch.tensor(np.array(factors.data, np.float32))
    return frequencies / metadata.get(f"{name}.rope.scaling.factor", 1.0)


def _load(decoder: PackedDecoder, name: str, tensors: dict[str, Any]) -> None:
    places = destinations(decoder)
    for tensor in tensors.values():
        if tensor.name == "rope_freqs.weight":
            continue
        values: Any = gguf.dequantize(tensor.data, tensor.tensor_type)
        values = values.astype(np.float32).reshape([int(size) for size in reversed(tensor.shape)])
        part = tensor.name.split(".")[2] if tensor.name.startswith("blk.") else ""
        if name in PERMUTED and part in ("attn_q", "attn_k"):
            heads = decoder.config.heads[0]
            heads = heads.num_heads if part == "attn_q" else heads.num_kv_heads
            values = half_rotation(values.reshape(len(values), -1), heads).reshape(values.shape)
        places.pop(_name(tensor.name)).copy_(torch.as_tensor(np.ascontiguousarray(values)))
    assert not places, f"the file lacks {min(places)}"
    spread_qk_norms(decoder)


def _name(name: str) -> str:
    """The name that Transformers gives to a tensor of the file."""
    if name in TOP_LEVEL:
        return TOP_LEVEL[name]
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{(IN_LAYER | NORMS)[part]}.{kind}"
