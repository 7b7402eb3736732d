"""How each model family is stored in GGUF: its name there, its metadata, and how weights are laid out.

Metadata keys and layouts are those that llama.cpp reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...models.known_config import Config
from .model_config import head_dim
from .rope import Rope, llama3_factors, long_factors, write_rope

if TYPE_CHECKING:
    import gguf

    from ..merged.merge import Floats


@dataclass(frozen=True)
class Architecture:
    """A model family as llama.cpp implements it."""

    name: str
    write: Callable[[gguf.GGUFWriter, Config, Rope], None]
    """Adds the family's metadata."""
    extra: Callable[[Config, Rope], dict[str, Floats]] = lambda config, rope: {}
    """Tensors that no checkpoint holds, by their GGUF names."""
    permuted: bool = False
    """Rotary pairs are adjacent in llama.cpp, and half a head apart in Transformers."""
    norm_shift: float = 0.0
    """What Transformers adds to the weight of a norm when it runs."""


def architecture_of(config: Config) -> Architecture:
    """The architecture of a model whose config `model_config` gave."""
    return ARCHITECTURES[config["model_type"]]


# --- The families. ---
def _write_sizes(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _write_plain(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    _write_sizes(writer, config)
    write_rope(writer, rope)
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def _write_llama(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    _write_plain(writer, config, rope)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(head_dim(config))


def _write_gemma2(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    _write_plain(writer, config, rope)
    writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def _write_gemma3(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    _write_plain(writer, config, rope)
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def _write_phi3(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    _write_sizes(writer, config)
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_freq_base(rope.theta)
    original = config["original_max_position_embeddings"] or config["max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(rope.fields.get("original_max_position_embeddings") or original)
    if rope.kind == "longrope":
        writer.add_rope_scaling_attn_factors(rope.long_attention_factor(config))
    writer.add_sliding_window(config.get("sliding_window") or 0)


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture("llama", _write_llama, llama3_factors, permuted=True),
    "mistral": Architecture("llama", _write_llama, llama3_factors, permuted=True),
    "smollm3": Architecture("smollm3", _write_llama, llama3_factors, permuted=True),
    "qwen2": Architecture("qwen2", _write_plain),
    "qwen3": Architecture("qwen3", _write_plain),
    "gemma2": Architecture("gemma2", _write_gemma2, norm_shift=1.0),
    "gemma3_text": Architecture("gemma3", _write_gemma3, norm_shift=1.0),
    "phi3": Architecture("phi3", _write_phi3, long_factors),
}
"""By Transformers' `model_type`; SmolLM and SmolLM2 are of type llama."""


# --- How weights are laid out. ---
@dataclass(frozen=True)
class RowLayout:
    """How a weight's rows are laid down: heads of rows that are permuted, and what is added to them."""

    heads: int | None = None
    shift: float = 0.0

    def row_multiple(self, rows: int) -> int:
        """Only whole heads can be permuted: blocks have to be multiples of this many rows."""
        return rows // self.heads if self.heads else 1

    def apply(self, values: Floats, total_rows: int) -> Floats:
        """The rows as GGUF holds them.

        Args:
            values: (rows, …), a multiple of `row_multiple`.
            total_rows: rows of the whole weight.
        """
        if self.shift:
            return values + np.float32(self.shift)
        if not self.heads:
            return values
        head = total_rows // self.heads
        pairs = values.reshape(-1, 2, head // 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)

    def undo(self, values: Floats, total_rows: int) -> Floats:
        """The rows as Transformers holds them; arguments as in `apply`."""
        if self.shift:
            return values - np.float32(self.shift)
        if not self.heads:
            return values
        head = total_rows // self.heads
        pairs = values.reshape(-1, head // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)


def row_layout(name: str, config: Config, architecture: Architecture) -> RowLayout:
    """How the weight of this Transformers name is laid down."""
    if architecture.norm_shift and name.endswith("norm.weight"):
        return RowLayout(shift=architecture.norm_shift)
    if architecture.permuted and name.endswith(("q_proj.weight", "q_proj.bias")):
        return RowLayout(heads=config["num_attention_heads"])
    if architecture.permuted and name.endswith(("k_proj.weight", "k_proj.bias")):
        return RowLayout(heads=config["num_key_value_heads"])
    return RowLayout()
