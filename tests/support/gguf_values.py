"""The values of a GGUF file under Transformers' names, read by the gguf package alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from numpy.typing import NDArray

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def metadata(path: Path) -> dict[str, Any]:
    """All keys with their values."""
    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def values(path: Path, heads: dict[str, int]) -> dict[str, NDArray[np.float32]]:
    """Every tensor as fp32 in the order of rows that Transformers has.

    Args:
        heads: by the last part of a module's name ("q_proj"), in how many heads its rows are permuted.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for tensor in GGUFReader(path).tensors:
        name, kind = _name(tensor.name)
        whole = dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape)))
        found[f"{name}.{kind}"] = _unpermuted(whole, heads.get(name.rpartition(".")[2]))
    return found


def _name(stored: str) -> tuple[str, str]:
    parts = stored.split(".")
    if parts[0] != "blk":
        return NAMES[parts[0]], parts[1]
    return f"model.layers.{parts[1]}.{NAMES[parts[2]]}", parts[3]


def _unpermuted(rows: NDArray[np.float32], heads: int | None) -> NDArray[np.float32]:
    """Pairs of rotary rows go from beside each other to half a head apart."""
    if heads is None:
        return rows
    pairs = rows.reshape(heads, len(rows) // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
