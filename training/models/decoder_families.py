"""The decoders that the packed engine trains, and what each family has besides Llama's layers: one row each.

Llama's layer is RMSNorm → attention with rotary positions and grouped heads → RMSNorm → SwiGLU, both added to
the residual stream. A family is Llama's with some switches changed; its sizes stand in its config.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from .attention_heads import Heads, gemma4_heads, gemma4_widths, head_dim, same_heads, same_widths
from .expert_layers import EXPERT_TARGETS, GEMMA4, GLM4, GPT_OSS, MIXTRAL, QWEN2, QWEN3, Experts

Number = Callable[[Any], float]
"""Of a transformers config."""
Switch = str | bool
"""An entry of the config that is true or false, or what it always is."""


class BranchNorms(NamedTuple):
    """Names of a layer's norms: before and after attention, before and after the MLP."""

    before_attention: str | None
    after_attention: str | None
    before_mlp: str | None
    after_mlp: str | None


PRE_NORMS = BranchNorms("input_layernorm", None, "post_attention_layernorm", None)
POST_NORMS = BranchNorms(None, "post_attention_layernorm", None, "post_feedforward_layernorm")
GEMMA_NORMS = BranchNorms(
    "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
)
GLM_NORMS = BranchNorms(
    "input_layernorm", "post_self_attn_layernorm", "post_attention_layernorm", "post_mlp_layernorm"
)


def _entry(name: str) -> Number:
    return lambda config: getattr(config, name)


def _no_cap(config: Any) -> None:
    return None


def _one(config: Any) -> float:
    return 1.0


def _every_layer(config: Any) -> list[bool]:
    return [True] * config.num_hidden_layers


def _listed_layers(config: Any) -> list[bool]:
    return [bool(use) for use in config.no_rope_layers[: config.num_hidden_layers]]


def _windowed_layers(config: Any) -> list[bool]:
    return [kind == "sliding_attention" for kind in config.layer_types]


def _windowed_layers_if_any(config: Any) -> list[bool]:
    return _every_layer(config) if config.sliding_window is None else _windowed_layers(config)


LAYER_EMBEDDING_MODULES = ("per_layer_input_gate", "per_layer_projection", "per_layer_model_projection")
"""The first two of a layer, the last one of the model."""


@dataclass(frozen=True)
class Family:
    """Switches of a family; the defaults are Llama's."""

    # --- Sizes of each layer. ---
    heads: Callable[[Any], tuple[Heads, ...]] = same_heads
    widths: Callable[[Any], tuple[int, ...]] = same_widths
    """Intermediate sizes of dense MLPs."""

    # --- Linear modules, and whether they have a bias. ---
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    """One name: a module that holds all three, one below the other, with one LoRA."""
    gate_up: tuple[str, ...] = ("gate_proj", "up_proj")
    qkv_bias: Switch = "attention_bias"
    o_proj_bias: Switch = "attention_bias"
    mlp_bias: Switch = False

    # --- Norms. ---
    norm: Literal["rms", "rms_fp32", "rms_plus_one", "layer"] = "rms"
    """weight · x̂, the same with the product in fp32, (1 + weight) · x̂, LayerNorm without a bias."""
    eps: str = "rms_norm_eps"
    norms: BranchNorms = PRE_NORMS
    parallel: bool = False
    """Whether the MLP reads what attention reads, and both are added to the layer's input."""
    qk_norm: Literal["head", "projection"] | None = None
    """Norm of queries and keys: of each head, or over all query heads and over all key heads."""
    qk_norm_if: str | None = None
    """The config's entry that says whether there is one; None: there is."""
    qk_norm_names: tuple[str, str] = ("q_norm", "k_norm")
    value_norm: bool = False
    """Whether values are normed as heads of queries and keys are, without a weight."""
    rotated_before_norm: bool = False

    # --- Positions. ---
    ropes: tuple[str, ...] = ("default", "linear", "dynamic", "llama3", "yarn")
    partial_rotary: bool = False
    """Whether the config may leave dimensions of each head unrotated."""
    interleaved: bool = False
    """Rotary pairs are adjacent instead of half a head apart."""
    rope_by_layer_type: bool = False
    rotated_layers: Callable[[Any], list[bool]] = _every_layer
    original_positions: int | None = None
    """Those from which queries are scaled by their position, where the config does not say."""
    window_everywhere: bool = False
    """Every layer has the config's window; otherwise those that `layer_types` says."""
    sinks: bool = False
    """Whether each head also has a learnt score without a value (Xiao et al. 2023, arXiv:2309.17453)."""

    # --- The end of a layer. ---
    token_layer_size: str | None = None
    """The config's entry with the size of an embedding that each token has for each layer (Gemma 3n's)."""
    layer_scalar: bool = False
    """Whether a layer's output is multiplied by a number of its own."""

    # --- Experts. ---
    experts: Experts | None = None
    experts_if: str | None = None
    """The config's entry that says whether there are any; None: there are."""

    # --- Activation and numbers. ---
    activation: str = "hidden_act"
    attention_scale: Number = lambda config: head_dim(config) ** -0.5
    attention_cap: Callable[[Any], float | None] = _no_cap
    embedding_scale: Number = _one
    residual_scale: Number = _one
    logits_scale: Number = _one
    logits_cap: Callable[[Any], float | None] = _no_cap

    @property
    def attention_modules(self) -> tuple[str, ...]:
        return (*self.qkv, "o_proj")

    @property
    def mlp_modules(self) -> tuple[str, ...]:
        """Of dense and shared MLPs; experts have none."""
        there = self.experts is None or self.experts.dense or self.experts.shared
        return (*self.gate_up, "down_proj") if there else ()

    @property
    def modules(self) -> tuple[str, ...]:
        """All linear modules of a layer, and those with which tokens' embeddings of layers are made."""
        further = LAYER_EMBEDDING_MODULES if self.token_layer_size else ()
        return self.attention_modules + self.mlp_modules + further

    @property
    def targets(self) -> tuple[str, ...]:
        """All that can have a LoRA."""
        return self.modules if self.experts is None else self.modules + EXPERT_TARGETS


ACTIVATIONS = ("silu", "swish", "gelu_pytorch_tanh")  # and those that a family's experts name
"""Gated activations that are known; `engine/packed/gated_activations.py` computes them."""

GEMMA_4 = Family(
    heads=gemma4_heads,
    widths=gemma4_widths,
    norm="rms_fp32",
    norms=GEMMA_NORMS,
    qk_norm="head",
    value_norm=True,
    ropes=("default", "proportional"),
    rope_by_layer_type=True,
    token_layer_size="hidden_size_per_layer_input",
    layer_scalar=True,
    experts=GEMMA4,
    experts_if="enable_moe_block",
    activation="hidden_activation",
    attention_scale=_one,
    embedding_scale=lambda config: config.hidden_size**0.5,
    logits_cap=_entry("final_logit_softcapping"),
)
"""Where tokens have no embeddings for each layer, the entry is 0."""

FAMILIES: Mapping[str, Family] = {
    "llama": Family(mlp_bias="mlp_bias"),
    "mistral": Family(window_everywhere=True),
    "ministral3": Family(qkv_bias=False, o_proj_bias=False, window_everywhere=True, original_positions=16384),
    "qwen2": Family(qkv_bias=True, o_proj_bias=False),
    "qwen3": Family(qk_norm="head"),
    "smollm3": Family(mlp_bias="mlp_bias", rotated_layers=_listed_layers),
    "gemma2": Family(
        norm="rms_plus_one",
        norms=GEMMA_NORMS,
        activation="hidden_activation",
        attention_scale=lambda config: config.query_pre_attn_scalar**-0.5,
        attention_cap=_entry("attn_logit_softcapping"),
        embedding_scale=lambda config: config.hidden_size**0.5,
        logits_cap=_entry("final_logit_softcapping"),
    ),
    "gemma3_text": Family(
        norm="rms_plus_one",
        norms=GEMMA_NORMS,
        qk_norm="head",
        ropes=("default", "linear"),
        rope_by_layer_type=True,
        activation="hidden_activation",
        attention_scale=lambda config: config.query_pre_attn_scalar**-0.5,
        embedding_scale=lambda config: config.hidden_size**0.5,
        logits_cap=_entry("final_logit_softcapping"),
    ),
    "gemma4_text": GEMMA_4,
    "gemma4_unified_text": replace(GEMMA_4, token_layer_size=None, experts=None, experts_if=None),
    "phi3": Family(
        qkv=("qkv_proj",),
        gate_up=("gate_up_proj",),
        qkv_bias=False,
        o_proj_bias=False,
        ropes=("default", "longrope"),
        partial_rotary=True,
        window_everywhere=True,
    ),
    "olmo2": Family(norm="rms_fp32", norms=POST_NORMS, qk_norm="projection"),
    "olmo3": Family(
        norm="rms_fp32",
        norms=POST_NORMS,
        qk_norm="projection",
        ropes=("default", "linear", "llama3", "yarn"),
        rope_by_layer_type=True,
    ),
    "granite": Family(
        mlp_bias="mlp_bias",
        attention_scale=_entry("attention_multiplier"),
        embedding_scale=_entry("embedding_multiplier"),
        residual_scale=_entry("residual_multiplier"),
        logits_scale=lambda config: 1 / config.logits_scaling,
    ),
    "glm4": Family(
        gate_up=("gate_up_proj",),
        o_proj_bias=False,
        norms=GLM_NORMS,
        partial_rotary=True,
        interleaved=True,
    ),
    "seed_oss": Family(o_proj_bias="attention_out_bias", mlp_bias="mlp_bias"),
    "ernie4_5": Family(qkv_bias="use_bias", o_proj_bias="use_bias", mlp_bias="use_bias", interleaved=True),
    "hunyuan_v1_dense": Family(
        qk_norm="head", qk_norm_names=("query_layernorm", "key_layernorm"), rotated_before_norm=True
    ),
    "exaone4": Family(
        qkv_bias=False,
        o_proj_bias=False,
        norms=POST_NORMS,
        qk_norm="head",
        rotated_layers=_windowed_layers_if_any,
    ),
    "cohere2": Family(
        norm="layer",
        eps="layer_norm_eps",
        norms=BranchNorms("input_layernorm", None, None, None),
        parallel=True,
        interleaved=True,
        rotated_layers=_windowed_layers,
        logits_scale=_entry("logit_scale"),
    ),
    "mixtral": Family(qkv_bias=False, o_proj_bias=False, window_everywhere=True, experts=MIXTRAL),
    "qwen2_moe": Family(qkv_bias="qkv_bias", o_proj_bias=False, experts=QWEN2),
    "qwen3_moe": Family(qk_norm="head", window_everywhere=True, experts=QWEN3),
    "gpt_oss": Family(norm="rms_fp32", sinks=True, experts=GPT_OSS),
    "glm4_moe": Family(
        o_proj_bias=False,
        qk_norm="head",
        qk_norm_if="use_qk_norm",
        partial_rotary=True,
        experts=GLM4,
    ),
}
"""By Transformers' `model_type`; SmolLM and SmolLM2 are of type llama, Phi-4 of type phi3."""

LLAMA = FAMILIES["llama"]


def family_of(config: Any) -> Family:
    """The row of a config, for this model: what its family may have and it has not is off."""
    family = FAMILIES[config.model_type]
    if family.qk_norm_if is not None and not getattr(config, family.qk_norm_if):
        family = replace(family, qk_norm=None)
    if family.token_layer_size is not None and not getattr(config, family.token_layer_size):
        family = replace(family, token_layer_size=None)
    if family.experts_if is not None and not getattr(config, family.experts_if):
        family = replace(family, experts=None)
    if family.experts is not None and family.experts.beside:  # they norm what they read themselves
        family = replace(family, norms=family.norms._replace(before_mlp=None))
    return family


PLAIN = "model"
"""Where the decoder is in a model of these families."""


class Inside(NamedTuple):
    """The decoder in a multimodal model."""

    place: str
    """Its module."""
    usual: str
    """Its family where `text_config` does not say."""
    caps_logits: bool = False
    """Whether transformers caps its logits there too."""


MULTIMODAL: Mapping[str, Inside] = {
    "gemma3": Inside("model.language_model", "gemma3_text"),
    "gemma4": Inside("model.language_model", "gemma4_text", caps_logits=True),
    "gemma4_unified": Inside("model.language_model", "gemma4_unified_text", caps_logits=True),
    "mistral3": Inside("model.language_model", "mistral"),
    "llava": Inside("model.language_model", "llama"),
    "internvl": Inside("model.language_model", "qwen2"),
    "smolvlm": Inside("model.text_model", "llama"),
    "idefics3": Inside("model.text_model", "llama"),
}
"""By Transformers' `model_type` of the whole model; `text_config` is of one of `FAMILIES`."""
EXPORTED_ALONE: Mapping[str, Inside] = {
    **MULTIMODAL,
    "qwen3_5": Inside("model.language_model", "qwen3_5_text"),
}
"""Multimodal models of which an export is the language model; of some, other engines than ours train it."""


def decoder_place(config: Any, known: Mapping[str, Inside] = MULTIMODAL) -> tuple[Any, str]:
    """The config of the decoder in a model, and the name of its module.

    Args:
        config: transformers' config of the model.
    """
    inside = known.get(config.model_type)
    return (config, PLAIN) if inside is None else (config.text_config, inside.place)


def decoder_entries(config: Mapping[str, Any], known: Mapping[str, Inside] = MULTIMODAL) -> Mapping[str, Any]:
    """The entries of a config.json that are the decoder's: of a multimodal model, its text_config's."""
    inside = known.get(str(config.get("model_type")))
    if inside is None:
        return config
    text: Mapping[str, Any] = config.get("text_config") or {}
    return {**text, "model_type": text.get("model_type", inside.usual)}
