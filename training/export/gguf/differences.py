"""What is built into llama.cpp, family by family: each yields what it expects and the config does not have.

Checked against the sources of llama.cpp, and by running it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ...models.attention_heads import PERIOD
from ...models.known_config import Config
from ...untrusted import short_name
from .layer_kinds import GEMMA_4, hybrid_layers, layer_types
from .metadata import HUNYUAN_CONTEXT
from .rope import head_dim, rope_of


def _expect(config: Config, name: str, *allowed: object) -> Iterator[str]:
    value = config.get(name)
    if value not in allowed:
        yield f"expects {name} = {allowed[-1]!r}, not {short_name(repr(value))}"


def _positive(config: Config, *names: str) -> Iterator[str]:
    for name in names:
        value = config.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
            yield f"expects a number above 0 as {name}"


def _windows(config: Config) -> Iterator[str]:
    """A window, and for each layer whether it has it."""
    yield from _positive(config, "sliding_window")
    kinds = layer_types(config, 4)
    known = {"sliding_attention", "full_attention"}
    if len(kinds) != config["num_hidden_layers"] or not set(kinds) <= known:
        yield "expects sliding_attention or full_attention for each layer in layer_types"


def _llama(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _expect(config, "layer_types", None, ["full_attention"] * config["num_hidden_layers"])


def _derived_head(config: Config) -> Iterator[str]:
    yield from _expect(config, "head_dim", None, config["hidden_size"] // config["num_attention_heads"])


def _phi3(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _derived_head(config)


def _qwen3(config: Config) -> Iterator[str]:
    yield from _llama(config)
    if config["use_sliding_window"]:
        yield f"has no sliding window in {config['model_type']} models"


def _qwen2(config: Config) -> Iterator[str]:
    yield from _qwen3(config)
    yield from _phi3(config)


def _smollm3(config: Config) -> Iterator[str]:
    yield from _qwen3(config)
    if not _rotates_as_smollm3(config):
        yield "expects no RoPE on every 4th SmolLM3 layer"


def _rotates_as_smollm3(config: Config) -> bool:
    """Every 4th layer has no RoPE; `no_rope_layers` (0: none, 1: RoPE) takes precedence over the interval."""
    listed, layers = config["no_rope_layers"], range(config["num_hidden_layers"])
    if listed is None:
        return config["no_rope_layer_interval"] == 4
    return len(listed) >= len(layers) and all(bool(listed[layer]) == (layer % 4 != 3) for layer in layers)


def _gemma(config: Config, period: int, layers_of_27b: int) -> Iterator[str]:
    """Every `period`-th layer has no window, and scores are divided by the root of the head's size."""
    layers = config["num_hidden_layers"]
    size = config["hidden_size"] // config["num_attention_heads"]
    yield from _expect(config, "hidden_activation", "gelu_pytorch_tanh")
    yield from _expect(config, "query_pre_attn_scalar", size if layers == layers_of_27b else head_dim(config))
    kinds = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(layers)]
    yield from _expect(config, "layer_types", None, kinds)
    yield from _positive(config, "sliding_window")


def _gemma2(config: Config) -> Iterator[str]:
    yield from _gemma(config, 2, 46)
    yield from _expect(config, "tie_word_embeddings", True)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if not config[name]:
            yield f"expects {name}"


def _gemma3(config: Config) -> Iterator[str]:
    yield from _gemma(config, 6, 62)
    for name in ("sliding_window_pattern", "_sliding_window_pattern"):
        yield from _expect(config, name, None, 6)


def _olmo2(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _olmo(config)


def _olmo(config: Config) -> Iterator[str]:
    yield from _derived_head(config)
    yield from _expect(config, "attention_bias", False)
    yield from _expect(config, "tie_word_embeddings", False)


def _olmo3(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _olmo(config)
    yield from _windows(config)
    rope = rope_of(config)
    if rope.window_theta != rope.theta:
        yield "has one rope_theta for all layers of olmo3 models"


def _granite(config: Config) -> Iterator[str]:
    yield from _phi3(config)
    yield from _positive(config, "attention_multiplier", "embedding_multiplier", "residual_multiplier")
    yield from _positive(config, "logits_scaling")


def _ministral3(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _expect(rope_of(config).fields, "mscale", 1.0)


def _seed_oss(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _expect(config, "attention_out_bias", False)
    yield from _expect(config, "mlp_bias", False)


def _ernie4_5(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _expect(config, "use_bias", False)


def _hunyuan(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _expect(config, "attention_bias", False)
    rope = rope_of(config)
    if rope.kind == "dynamic":
        yield from _expect(config, "max_position_embeddings", 32_768, HUNYUAN_CONTEXT)
        yield from _expect({"rope_theta": rope.theta}, "rope_theta", 10_000.0)


def _exaone4(config: Config) -> Iterator[str]:
    """Only the model with 64 layers has windows."""
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _derived_head(config)
    if config["num_hidden_layers"] != 64:
        yield from _expect(config, "sliding_window", None)
        yield from _expect(config, "layer_types", None, ["full_attention"] * config["num_hidden_layers"])
        return
    yield from _windows(config)
    if not config.get("layer_types"):
        yield from _expect(config, "sliding_window_pattern", "LLLG", 4)


def _cohere2(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _derived_head(config)
    yield from _expect(config, "attention_bias", False)
    yield from _expect(config, "tie_word_embeddings", True)
    yield from _expect(config, "rotary_pct", None, 1.0)
    yield from _positive(config, "sliding_window", "logit_scale")
    yield from _expect(config, "layer_types", None, layer_types({**config, "layer_types": None}, 4))
    for name in ("sliding_window_pattern", "_sliding_window_pattern"):
        yield from _expect(config, name, None, 4)


def _mixtral(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _positive(config, "num_local_experts", "num_experts_per_tok")


def _qwen3_moe(config: Config) -> Iterator[str]:
    yield from _qwen3(config)
    yield from _expect(config, "norm_topk_prob", True)
    yield from _expect(config, "decoder_sparse_step", 1)
    yield from _expect(config, "mlp_only_layers", None, [])
    yield from _positive(config, "num_local_experts", "num_experts_per_tok", "moe_intermediate_size")


def _glm4_moe(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _expect(config, "n_group", 1)
    yield from _expect(config, "topk_group", 1)
    yield from _positive(config, "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size")
    yield from _positive(config, "n_shared_experts", "first_k_dense_replace", "routed_scaling_factor")


def _gpt_oss(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _expect(config, "swiglu_alpha", None, 1.702)
    yield from _expect(config, "swiglu_limit", None, 7.0)
    yield from _expect(config, "tie_word_embeddings", False)
    yield from _expect(config, "attention_bias", True)
    yield from _positive(config, "sliding_window", "num_local_experts", "num_experts_per_tok")
    kinds = ("sliding_attention", "full_attention")
    usual = [kinds[layer % 2] for layer in range(config["num_hidden_layers"])]
    yield from _expect(config, "layer_types", None, usual)


def _qwen3_5(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _expect(config, "attention_bias", False)
    yield from _expect(config, "attn_output_gate", None, True)
    yield from _expect(config, "rms_norm_eps", 1e-6)  # that of Transformers' norm of queries and keys
    sizes = ("conv_kernel_dim", "key_head_dim", "value_head_dim", "num_key_heads", "num_value_heads")
    yield from _positive(config, *(f"linear_{name}" for name in sizes))
    if config["linear_num_value_heads"] % config["linear_num_key_heads"]:
        yield "expects linear_num_value_heads to be a multiple of linear_num_key_heads"
    yield from _expect(config, "linear_value_head_dim", config["linear_key_head_dim"])
    kinds = hybrid_layers(config)
    if len(kinds) != config["num_hidden_layers"] or not set(kinds) <= {"linear_attention", "full_attention"}:
        yield "expects linear_attention or full_attention for each layer in layer_types"


def _gemma4(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_activation", "gelu_pytorch_tanh")
    yield from _expect(config, "attention_bias", False)
    if config.get("enable_moe_block"):
        yield from _positive(config, "num_experts", "top_k_experts", "moe_intermediate_size")
    yield from _expect(config, "use_bidirectional_attention", "vision", None)
    yield from _positive(config, "sliding_window")
    if config["model_type"] == "gemma4_unified_text":
        yield from _expect(config, "hidden_size_per_layer_input", None, 0)
    elif config["hidden_size_per_layer_input"]:
        yield from _expect(config, "vocab_size_per_layer_input", config["vocab_size"])
    kinds = layer_types(config, PERIOD)
    known = {"sliding_attention", "full_attention"}
    if len(kinds) != config["num_hidden_layers"] or not set(kinds) <= known or kinds[-1] != "full_attention":
        yield "expects a window or none for each layer in layer_types, and none in the last"
    sizes: dict[str, Any] = config.get("per_layer_config") or {}
    given = {tuple(sorted(one.items())) for one in sizes.values()}
    full = {str(layer) for layer, kind in enumerate(kinds) if kind == "full_attention"}
    if sizes and (len(given) != 1 or {str(int(layer)) for layer in sizes} != full):
        yield "expects the same per_layer_config for all layers without a window, and none for others"


DIFFERENCES: Mapping[str, Callable[[Config], Iterator[str]]] = {
    "llama": _llama,
    "mistral": _llama,
    "smollm3": _smollm3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "olmo2": _olmo2,
    "olmo3": _olmo3,
    "granite": _granite,
    "glm4": _llama,
    "ministral3": _ministral3,
    "seed_oss": _seed_oss,
    "ernie4_5": _ernie4_5,
    "hunyuan_v1_dense": _hunyuan,
    "exaone4": _exaone4,
    "cohere2": _cohere2,
    "qwen3_5_text": _qwen3_5,
    **dict.fromkeys(GEMMA_4, _gemma4),
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "glm4_moe": _glm4_moe,
    "gpt_oss": _gpt_oss,
}
