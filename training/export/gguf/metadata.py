"""The metadata of each model family: the keys that llama.cpp reads, as its own converter writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...models.known_config import Config
from .expert_tensors import experts_of
from .layer_kinds import hybrid_layers, layer_types
from .rope import Rope, head_dim, write_rope

if TYPE_CHECKING:
    import gguf

Write = Callable[["gguf.GGUFWriter", Config, Rope], None]
"""Adds the family's metadata."""


def write_sizes(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    if "rms_norm_eps" in config:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    else:
        writer.add_layer_norm_eps(config["layer_norm_eps"])


def write_plain(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_sizes(writer, config)
    write_rope(writer, rope)
    if config.get("head_dim"):
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def write_llama(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_dimension_count(head_dim(config))


def write_gemma2(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
    writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def write_gemma3(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    writer.add_sliding_window(config["sliding_window"])


def write_phi3(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_sizes(writer, config)
    writer.add_rope_dimension_count(rope.dimensions(config))
    writer.add_rope_freq_base(rope.theta)
    original = config["original_max_position_embeddings"] or config["max_position_embeddings"]
    writer.add_rope_scaling_orig_ctx_len(rope.fields.get("original_max_position_embeddings") or original)
    if rope.kind == "longrope":
        writer.add_rope_scaling_attn_factors(rope.long_attention_factor(config))
    writer.add_sliding_window(config.get("sliding_window") or 0)


def write_olmo3(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    _write_window(writer, config, layer_types(config, 4))


def write_granite(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_llama(writer, config, rope)
    writer.add_attention_scale(config["attention_multiplier"])
    writer.add_embedding_scale(config["embedding_multiplier"])
    writer.add_residual_scale(config["residual_multiplier"])
    writer.add_logit_scale(config["logits_scaling"])


def write_glm4(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    writer.add_rope_dimension_count(rope.dimensions(config))


def write_ministral3(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_llama(writer, config, rope)
    writer.add_rope_scaling_yarn_log_mul(rope.fields["mscale_all_dim"])
    writer.add_attn_temperature_scale(rope.fields["llama_4_scaling_beta"])


def write_exaone4(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    writer.add_vocab_size(config["vocab_size"])
    if config["sliding_window"] is not None:
        _write_window(writer, config, layer_types(config, 4))


def write_cohere2(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    import gguf

    write_plain(writer, config, rope)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_logit_scale(config["logit_scale"])
    writer.add_sliding_window(config["sliding_window"])
    writer.add_rope_dimension_count(head_dim(config))
    writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)


def write_hunyuan(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    """NTK-aware scaling with a fixed alpha is a base frequency, whatever the length of the text."""
    import gguf

    write_plain(writer, config, rope)
    if rope.kind == "dynamic":
        writer.add_rope_freq_base(rope.ntk_theta(config))
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_rope_scaling_factor(1)
        writer.add_rope_scaling_orig_ctx_len(HUNYUAN_CONTEXT)
        writer.add_context_length(HUNYUAN_CONTEXT)


def write_mixtral(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_llama(writer, config, rope)
    _write_experts(writer, config)


def write_qwen3_moe(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    _write_experts(writer, config)
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def write_glm4_moe(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    import gguf

    write_glm4(writer, config, rope)
    _write_experts(writer, config)
    writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    writer.add_expert_shared_count(config["n_shared_experts"])
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])
    writer.add_leading_dense_block_count(config["first_k_dense_replace"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])


def write_gpt_oss(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_plain(writer, config, rope)
    _write_experts(writer, config)
    writer.add_sliding_window(config["sliding_window"])
    writer.add_expert_feed_forward_length(config["intermediate_size"])


def write_qwen3_5(writer: gguf.GGUFWriter, config: Config, rope: Rope) -> None:
    write_glm4(writer, config, rope)
    writer.add_rope_dimension_sections([*rope.fields.get("mrope_section", MROPE_SECTIONS), 0][:4])
    writer.add_ssm_conv_kernel(config["linear_conv_kernel_dim"])
    writer.add_ssm_state_size(config["linear_key_head_dim"])
    writer.add_ssm_group_count(config["linear_num_key_heads"])
    writer.add_ssm_time_step_rank(config["linear_num_value_heads"])
    writer.add_ssm_inner_size(config["linear_value_head_dim"] * config["linear_num_value_heads"])
    kinds = hybrid_layers(config)
    writer.add_array("qwen35.attention.recurrent_layers", [kind == "linear_attention" for kind in kinds])
    writer.add_full_attention_interval(config.get("full_attention_interval") or 4)


MROPE_SECTIONS = [11, 11, 10]
"""Usual parts of the rotated dimensions for time, height and width; of text, all three are the position."""


def _write_experts(writer: gguf.GGUFWriter, config: Config) -> None:
    writer.add_expert_count(experts_of(config))
    writer.add_expert_used_count(config["num_experts_per_tok"])


HUNYUAN_CONTEXT = 262_144  # that of all published models, whatever their config.json says


def _write_window(writer: gguf.GGUFWriter, config: Config, kinds: Sequence[str]) -> None:
    writer.add_sliding_window(config["sliding_window"])
    writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in kinds])
