"""A small config for every type of causal language model in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIZES: Mapping[str, Any] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "encoder_hash_byte_group_vocab"), 128),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_proj_dim"), 64),
    **dict.fromkeys(("emb_dim", "hidden_size_global", "ple_embed_dim", "mamba_d_ssm"), 64),
    **dict.fromkeys(("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "encoder_ffn_dim"), 96),
    **dict.fromkeys(("decoder_ffn_dim", "dff", "feed_forward_size", "shared_intermediate_size"), 96),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers"), 4),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"), 128),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("shared_experts_intermediate_size", "moe_shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "n_shared_experts"), 1),
    **dict.fromkeys(("bos_token_id", "eos_token_id"), 1),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "linear_num_heads"), 2),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "linear_head_dim"), 16),
    **dict.fromkeys(("mamba_d_state", "ssm_state_size", "state_size"), 8),
    **dict.fromkeys(("sliding_window", "attention_chunk_size", "window_size", "index_topk"), 8),
    **dict.fromkeys(("mamba_n_heads", "mamba_num_heads", "num_kv_heads", "mamba_n_groups", "n_groups"), 2),
    **dict.fromkeys(("hc_lowrank", "kv_lora_rank", "router_hidden_size", "time_step_rank"), 16),
    **dict.fromkeys(("hidden_size_per_layer_input", "rotary_dim", "ngram_vocab_size_base"), 8),
    "num_key_value_heads": 2,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "head_dim": 16,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 16,
    **dict.fromkeys(("adapter_in_dim", "adapter_input_size", "adapter_out_dim", "adapter_output_size"), 64),
    "base_channels": 32,
    "zero_expert_num": 2,
    "depth": 2,
}
"""By the names that configs have for them."""
LATENT: Mapping[str, Any] = dict(
    num_key_value_heads=4, head_dim=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16, q_lora_rank=24,
)  # fmt: skip
"""Of types whose keys and values come from a smaller vector."""
MAMBA: Mapping[str, Any] = {"mamba_d_head": 64}
SPARSE = ["dense", "sparse", "sparse", "sparse"]
ALTERNATING = ["sliding_attention", "full_attention"] * 2
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
GEMMA4: Mapping[str, Any] = {"global_head_dim": 32, "layer_types": ALTERNATING}
GEMMA3N: Mapping[str, Any] = {
    "intermediate_size": [96] * 4,
    "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0],
    "num_kv_shared_layers": 2,
    "layer_types": ALTERNATING,
}
DRAFTING: Mapping[str, Any] = {
    "hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0, "num_kv_shared_layers": 4, **GEMMA4
}  # fmt: skip
INDEXED: Mapping[str, Any] = {
    "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16, "indexer_budget": 8,
    "indexer_compress_ratio": 4, "layer_types": ["linear_attention", "indexed_attention"] * 2,
}  # fmt: skip
ADAPTED: Mapping[str, Mapping[str, Any]] = {
    "bamba": {**MAMBA, "attn_layer_indices": [1, 3]},
    "beam": {"mlp_layer_types": SPARSE},
    "deepseek_v2": {"num_experts_per_tok": 2, "topk_method": "greedy"},
    "cohere_compass_text": {"rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE}},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 32, "hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dots1": {"n_shared_experts": 1, "n_routed_experts": 4, "num_experts_per_tok": 2},
    "dots3_note_text": {"head_dim": 16, "per_layer_config": {}},
    "emu3": {"vocabulary_map": {"<image>": 5, "<|extra_200|>": 6}},
    "gemma3_text": {"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
    "gemma3n_text": GEMMA3N,
    "gemma4_text": GEMMA4,
    "gemma4_unified_text": GEMMA4,
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "granitemoehybrid": {**MAMBA, "layer_types": ["linear_attention", "full_attention"] * 2},
    "gemma4_assistant": {"text_config": DRAFTING},
    "gemma4_unified_assistant": {"text_config": DRAFTING},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2, "num_dense_layers": 1},
    "mamba2": {"num_heads": 4, "head_dim": 32, "expand": 2, "chunk_size": 16},
    "nemotron_h": {"mamba_head_dim": 32, "mamba_num_heads": 4},
    "qwen4_exp_text": INDEXED,
    "qwen2_vl_text": {"rope_parameters": {**ROPE, "mrope_section": [2, 3, 3]}},
    "qwen2_5_vl_text": {"rope_parameters": {**ROPE, "mrope_section": [2, 3, 3]}},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "num_attention_heads": 4},
    "zamba": {"attention_head_dim": 32, "mamba_dt_rank": 4, "n_mamba_heads": 2},
    "zaya": {"num_experts_per_tok": 1},
}
"""What a type needs besides, or otherwise."""


def small_sizes(kind: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The small values of a config's entries, also of those of its parts.

    Args:
        known: the usual entries.
    """
    sizes = {name: value for name, value in SIZES.items() if name in known}
    if "qk_rope_head_dim" in known:
        sizes |= {name: value for name, value in LATENT.items() if name in known}
    for name, value in known.items():
        if name.endswith("_config") and name != "per_layer_config" and isinstance(value, dict):
            inside = {each: entry for each, entry in value.items() if each != "per_layer_config"}
            sizes[name] = {**inside, **small_sizes(str(inside.get("model_type")), inside)}
        elif name.endswith(("layer_types", "layers_block_type")) and isinstance(value, list):
            sizes[name] = (list(dict.fromkeys(value)) * 4)[:4]
    return {**sizes, **ADAPTED.get(kind, {})}
