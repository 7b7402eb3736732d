"""The sizes of a Llama-like decoder, read from a Hugging Face config, and what the packed step cannot train.

Each layer is RMSNorm → attention with rotary positions and grouped heads → RMSNorm → SwiGLU, both added to
the residual stream. The families differ in a few switches only, which `DecoderConfig` names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...config.specs import LoraGroup
from ...models.llama_like import ATTENTION_MODULES, FAMILIES, MLP_MODULES
from ...untrusted import quoted, short_name

ROPE_TYPES = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and switches of a decoder. `windows` and `use_rope` have one entry per layer."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    qkv_bias: bool
    o_proj_bias: bool
    mlp_bias: bool
    qk_norm: bool
    windows: tuple[int | None, ...]
    """Positions that a token attends to, itself included; None is all before it."""
    use_rope: tuple[bool, ...]
    """Whether the layer's queries and keys are rotated (SmolLM3 leaves some out)."""
    inverse_frequencies: Tensor  # (head_dim / 2,) fp32
    rotary_scale: float
    """Factor on cos and sin (YaRN's attention factor)."""

    @property
    def num_layers(self) -> int:
        return len(self.windows)

    @property
    def parameters(self) -> int:
        """Weights of all matrices, the head counted even if it is tied; a step costs about 4 FLOP each."""
        heads = 2 * self.num_heads + 2 * self.num_kv_heads
        layer = self.hidden_size * (heads * self.head_dim + 3 * self.intermediate_size)
        return self.num_layers * layer + self.vocab_size * self.hidden_size


def read_decoder_config(config: Any) -> DecoderConfig:
    """The sizes that a config of one of `FAMILIES` describes. Ask `why_not_packed` first."""
    family = config.model_type
    inverse_frequencies, rotary_scale = rope_frequencies(config)
    attention_bias = bool(getattr(config, "attention_bias", False))
    mlp_bias = bool(getattr(config, "mlp_bias", False))
    layers = config.num_hidden_layers
    use_rope = getattr(config, "no_rope_layers", None) or [1] * layers
    return DecoderConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=head_dim(config),
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=bool(config.tie_word_embeddings),
        qkv_bias=family == "qwen2" or attention_bias,
        o_proj_bias=family != "qwen2" and attention_bias,
        mlp_bias=family in ("llama", "smollm3") and mlp_bias,
        qk_norm=family == "qwen3",
        windows=_windows(config),
        use_rope=tuple(bool(use) for use in use_rope[:layers]),
        inverse_frequencies=inverse_frequencies,
        rotary_scale=rotary_scale,
    )


def head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _windows(config: Any) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    if config.model_type == "mistral":
        return (window,) * config.num_hidden_layers
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def rope_frequencies(config: Any) -> tuple[Tensor, float]:
    """Angle per position of each pair of dimensions, θ^(-2i/d), scaled as the config says, and YaRN's factor.

    Su et al. 2021, arXiv:2104.09864; the scalings are transformers' own. "dynamic" begins to scale beyond
    the trained length only, which the packed step does not reach.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = config.rope_parameters["rope_type"]
    if kind == "default":
        dimensions = torch.arange(0, head_dim(config), 2, dtype=torch.float32)
        return 1.0 / config.rope_parameters["rope_theta"] ** (dimensions / head_dim(config)), 1.0
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config)
    return frequencies.float(), float(scale)


def targeted_modules(lora: LoraGroup) -> tuple[str, ...]:
    """The names of the linear modules that get a LoRA, as far as such a decoder has them."""
    if lora.target_modules == "all-linear":
        return ATTENTION_MODULES + MLP_MODULES
    if lora.target_modules == "attention":
        return ATTENTION_MODULES
    names = (lora.target_modules,) if isinstance(lora.target_modules, str) else tuple(lora.target_modules)
    return tuple(name for name in ATTENTION_MODULES + MLP_MODULES if name in names)


def why_not_packed(config: Any, *, lora: LoraGroup | None = None, max_seq_length: int = 0) -> str | None:
    """The reason why the packed step cannot train this model, in one sentence, or None if it can."""
    if config.model_type not in FAMILIES:
        return f"The packed step has no {short_name(config.model_type)} layers."
    if getattr(config, "quantization_config", None) is not None:
        return "The base is quantised, and the packed step computes with whole weights."
    if config.hidden_act not in ("silu", "swish"):
        return f"The packed step has no {short_name(config.hidden_act)} activation."
    if getattr(config, "attention_dropout", 0.0):
        return f"The model is trained with attention dropout {short_name(config.attention_dropout)}."
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"The packed step has no {quoted(min(kinds))} layers."
    architecture = (getattr(config, "architectures", None) or ["ForCausalLM"])[0]
    if not architecture.endswith("ForCausalLM"):
        return f"{quoted(architecture)} is not a causal language model."
    return _why_not_rotated(config.rope_parameters, config, max_seq_length) or _why_not_adapted(lora)


def _why_not_rotated(rope: Mapping[str, Any], config: Any, max_seq_length: int) -> str | None:
    kind = rope.get("rope_type")
    if kind not in ROPE_TYPES:
        return f"The packed step has no {short_name(kind)} rotary scaling."
    if rope.get("partial_rotary_factor", 1.0) not in (None, 1.0):
        return f"Only {short_name(rope['partial_rotary_factor'])} of each head is rotated."
    if kind == "dynamic" and max_seq_length > config.max_position_embeddings:
        return f"Dynamic rotary scaling changes beyond {config.max_position_embeddings} tokens."
    return None


def _why_not_adapted(lora: LoraGroup | None) -> str | None:
    if lora is None or lora.target_modules in ("all-linear", "attention"):
        return None
    names = (lora.target_modules,) if isinstance(lora.target_modules, str) else tuple(lora.target_modules)
    unknown = [name for name in names if name not in ATTENTION_MODULES + MLP_MODULES]
    return f"The packed step has no LoRA on {', '.join(map(short_name, unknown))}." if unknown else None
