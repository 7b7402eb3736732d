"""Gemma 4's language models: larger heads without a window, shared keys, embeddings of layers, experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.attention_heads import FULL_HEAD, PERIOD
from ...models.known_config import Config
from .expert_tensors import experts_of
from .layer_kinds import layer_types
from .rope import Rope

if TYPE_CHECKING:
    import gguf

    from ..merged.merge import Floats

UNROTATED = 1e30
"""What a frequency is divided by so that its dimensions are not rotated."""


def of_full_layers(config: Config, name: str) -> Any:
    """A size of the layers without a window that differs from that of the others; None if it does not."""
    given: Mapping[str, Any] = config.get("per_layer_config") or {}
    kinds = layer_types(config, PERIOD)
    return next(
        (sizes[name] for layer, sizes in given.items() if name in sizes and _is_full(kinds, layer)), None
    )


def _is_full(kinds: list[str], layer: str) -> bool:
    return int(layer) < len(kinds) and kinds[int(layer)] == "full_attention"


def full_head(config: Config) -> int:
    """Dimensions of each head in layers without a window."""
    return config.get("global_head_dim") or of_full_layers(config, "head_dim") or FULL_HEAD


def full_kv_heads(config: Config) -> int | None:
    """Heads of keys and values in layers without a window, if they differ from the others'."""
    outside = config.get("num_global_key_value_heads") if config["attention_k_eq_v"] else None
    return outside or of_full_layers(config, "num_key_value_heads")


def write_gemma4(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    kinds = layer_types(config, PERIOD)
    windowed = [kind == "sliding_attention" for kind in kinds]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_feed_forward_length(_widths(config))
    full, usual = full_kv_heads(config), config["num_key_value_heads"]
    writer.add_head_count_kv(usual if full is None else [usual if window else full for window in windowed])
    writer.add_rope_freq_base(rope.theta)
    writer.add_rope_freq_base_swa(rope.window_theta or rope.theta)
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern(windowed)
    writer.add_shared_kv_layers(config["num_kv_shared_layers"])
    writer.add_embedding_length_per_layer_input(config.get("hidden_size_per_layer_input") or 0)
    if experts_of(config):
        writer.add_expert_count(experts_of(config))
        writer.add_expert_used_count(config["top_k_experts"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    _write_heads(writer, full_head(config), config["head_dim"])


def _write_heads(writer: gguf.GGUFWriter, full: int, windowed: int) -> None:
    writer.add_key_length(full)
    writer.add_value_length(full)
    writer.add_key_length_swa(windowed)
    writer.add_value_length_swa(windowed)
    writer.add_rope_dimension_count(full)
    writer.add_rope_dimension_count_swa(windowed)


def _widths(config: Config) -> int | list[int]:
    """Of the MLPs: those of layers with shared keys and values may be twice as wide."""
    width, layers = config["intermediate_size"], config["num_hidden_layers"]
    if not config["use_double_wide_mlp"]:
        return width
    shared = config["num_kv_shared_layers"]
    return [width] * (layers - shared) + [2 * width] * shared


def proportional_factors(config: Config, rope: Rope) -> dict[str, Floats]:
    """What each rotary frequency is divided by in layers without a window, (head size / 2,)."""
    half = full_head(config) // 2
    rotated = int(full_head(config) * rope.share / 2)
    values = np.full(half, UNROTATED, np.float32)
    values[:rotated] = 1.0
    return {"rope_freqs.weight": values}
