"""The entries of a config.json that are known, family by family, with Transformers' default for each.

Our own decoder and GGUF files compute what these entries say. A model with any other entry is left to
Transformers, or refused by the entry's name. A test compares the table with the classes of Transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Config = Mapping[str, Any]

WITHOUT_EFFECT = frozenset(
    {
        *("architectures", "model_type", "transformers_version", "auto_map", "dtype", "torch_dtype"),
        *("_name_or_path", "_commit_hash", "name_or_path", "tokenizer_class", "transformers.js_config"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "sep_token_id"),
        *("use_cache", "cache_implementation", "attn_implementation", "_attn_implementation"),
        *("_attn_implementation_autoset", "_attn_implementation_internal", "chunk_size_feed_forward"),
        *("initializer_range", "attention_dropout", "resid_pdrop", "embd_pdrop", "pretraining_tp"),
        *("output_hidden_states", "output_attentions", "return_dict", "use_return_dict", "torchscript"),
        *("id2label", "label2id", "num_labels", "problem_type", "task_specific_params", "finetuning_task"),
        *("is_llama_config", "unsloth_fixed", "unsloth_version", "max_window_layers"),
        *("do_sample", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "max_length"),
        *("min_length", "num_beams", "num_beam_groups", "length_penalty", "num_return_sequences"),
    }
)
"""Entries that change nothing of what the model computes from given tokens."""

ROPE = frozenset(
    {
        *("rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq"),
        *("partial_rotary_factor", "original_max_position_embeddings"),
    }
)
SIZES: Config = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
ACTIVATED = {"hidden_act": "silu"}
WINDOWED = {"use_sliding_window": False, "sliding_window": None}
GEMMA: Config = {
    **SIZES,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
QWEN: Config = {
    **SIZES,
    **ACTIVATED,
    **WINDOWED,
    "vocab_size": 151936,
    "intermediate_size": 22016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
}
OLMO: Config = {
    **SIZES,
    **ACTIVATED,
    "vocab_size": 50304,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
}
COHERE: Config = {
    **{name: value for name, value in SIZES.items() if name != "rms_norm_eps"},
    **ACTIVATED,
    "vocab_size": 256000,
    "hidden_size": 8192,
    "intermediate_size": 22528,
    "num_hidden_layers": 40,
    "num_attention_heads": 64,
    "max_position_embeddings": 8192,
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "logit_scale": 0.0625,
    "attention_bias": False,
    "sliding_window": 4096,
}
BALANCED = {"output_router_logits": False, "router_aux_loss_coef": 0.001}
"""Of a loss that balances experts in pretraining; ours is that of the labels alone."""
QWEN_MOE: Config = {
    **SIZES,
    **ACTIVATED,
    **WINDOWED,
    **BALANCED,
    "vocab_size": 151936,
    "hidden_size": 2048,
    "num_hidden_layers": 24,
    "max_position_embeddings": 32768,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": False,
}
DEFAULTS: Mapping[str, Config] = {
    "llama": {**SIZES, **ACTIVATED, "attention_bias": False, "mlp_bias": False},
    "mistral": {
        **SIZES,
        **ACTIVATED,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "sliding_window": 4096,
    },
    "smollm3": {
        **SIZES,
        **ACTIVATED,
        **WINDOWED,
        "vocab_size": 128256,
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "no_rope_layers": None,
        "no_rope_layer_interval": 4,
    },
    "qwen2": QWEN,
    "qwen3": {**QWEN, "head_dim": 128},
    "gemma2": {
        **GEMMA,
        "vocab_size": 256000,
        "max_position_embeddings": 8192,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": {
        **GEMMA,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "final_logit_softcapping": None,
    },
    "phi3": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "original_max_position_embeddings": 4096,
        "sliding_window": None,
    },
    "olmo2": OLMO,
    "olmo3": {**OLMO, "sliding_window": 4096},
    "granite": {
        **SIZES,
        **ACTIVATED,
        "attention_bias": False,
        "mlp_bias": False,
        "embedding_multiplier": 1.0,
        "logits_scaling": 1.0,
        "residual_multiplier": 1.0,
        "attention_multiplier": 1.0,
    },
    "glm4": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 151552,
        "intermediate_size": 13696,
        "num_hidden_layers": 40,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1.5625e-07,
        "attention_bias": True,
    },
    "ministral3": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 131072,
        "intermediate_size": 14336,
        "num_hidden_layers": 34,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 262144,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
    "seed_oss": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 155136,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 80,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 524288,
        "attention_bias": True,
        "attention_out_bias": False,
        "residual_dropout": 0.1,
        "mlp_bias": False,
    },
    "ernie4_5": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 103424,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "use_bias": False,
    },
    "hunyuan_v1_dense": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 290943,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
    },
    "exaone4": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 102400,
        "intermediate_size": 16384,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "sliding_window": 4096,
        "sliding_window_pattern": 4,
    },
    "cohere2": COHERE,
    "gemma4_text": {
        **{name: value for name, value in GEMMA.items() if name != "query_pre_attn_scalar"},
        "num_hidden_layers": 30,
        "vocab_size": 262144,
        "max_position_embeddings": 131072,
        "attention_bias": False,
        "sliding_window": 512,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": None,
        "vocab_size_per_layer_input": 262144,
        "hidden_size_per_layer_input": 256,
        "attention_k_eq_v": False,
        "num_kv_shared_layers": 0,
        "enable_moe_block": False,
        "use_double_wide_mlp": False,
        "num_experts": None,
        "top_k_experts": None,
        "moe_intermediate_size": None,
    },
    "gemma4_unified_text": {
        **{name: value for name, value in GEMMA.items() if name != "query_pre_attn_scalar"},
        "num_hidden_layers": 30,
        "vocab_size": 262144,
        "max_position_embeddings": 262144,
        "attention_bias": False,
        "sliding_window": 1024,
        "final_logit_softcapping": None,
        "use_bidirectional_attention": "vision",
        "attention_k_eq_v": False,
        "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False,
    },
    "qwen3_5_text": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 248320,
        "intermediate_size": 12288,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 32768,
        "attention_bias": False,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    },
    "mixtral": {
        **SIZES,
        **ACTIVATED,
        **BALANCED,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
        "router_jitter_noise": 0.0,
    },
    "qwen2_moe": {
        **QWEN_MOE,
        "intermediate_size": 5632,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "qkv_bias": True,
    },
    "qwen3_moe": {
        **QWEN_MOE,
        "intermediate_size": 6144,
        "num_key_value_heads": 4,
        "num_local_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "attention_bias": False,
    },
    "gpt_oss": {
        **SIZES,
        **ACTIVATED,
        **BALANCED,
        "vocab_size": 201088,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": 36,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "sliding_window": 128,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "attention_bias": True,
    },
    "glm4_moe": {
        **SIZES,
        **ACTIVATED,
        "vocab_size": 151552,
        "intermediate_size": 10944,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "n_routed_experts": 128,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "norm_topk_prob": True,
        "use_qk_norm": False,
        "num_nextn_predict_layers": 1,
    },
}
"""By Transformers' `model_type`; SmolLM and SmolLM2 are of type llama, Phi-4 of type phi3."""

FURTHER: Mapping[str, frozenset[str]] = {
    "gemma2": frozenset({"hidden_act"}),
    "gemma3_text": frozenset({"hidden_act", "sliding_window_pattern", "_sliding_window_pattern"}),
    "phi3": frozenset({"full_attn_mod", "interpolate_factor"}),
    "hunyuan_v1_dense": frozenset(
        {
            *("eod_token_id", "attention_head_dim", "use_qk_norm", "use_rotary_pos_emb", "norm_type"),
            *("cla_share_factor", "class_num", "dense_list", "num_experts", "org_vocab_size", "pool_type"),
            *("im_start_id", "im_end_id", "im_newline_id", "text_start_id", "text_end_id", "mask_init_id"),
        }
    ),
    "cohere2": frozenset(
        {
            *("sliding_window_pattern", "_sliding_window_pattern", "layer_switch", "rotary_pct"),
            *("order_of_interleaved_layers", "position_embedding_type", "use_embedding_sharing"),
            *("use_gated_activation", "use_parallel_block", "use_parallel_embedding"),
        }
    ),
    "qwen3_moe": frozenset({"num_experts"}),
    **dict.fromkeys(
        ("gemma4_text", "gemma4_unified_text"),
        frozenset({"per_layer_config", "global_head_dim", "num_global_key_value_heads"})
        | {"hidden_size_per_layer_input", "vocab_size_per_layer_input"},
    ),
    "qwen3_5_text": frozenset(
        {
            *("full_attention_interval", "attn_output_gate", "mamba_ssm_dtype", "mlp_only_layers"),
            *("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings"),
        }
    ),
    "gpt_oss": frozenset({"experts_per_token", "initial_context_length", "swiglu_alpha", "swiglu_limit"}),
    "glm4_moe": frozenset({"num_mtp_layers", "output_router_logits"}),
}
"""Entries without a default of their own. Transformers' class reads none of those of published models
that are listed here, such as Gemma's hidden_act."""
OTHER_NAMES: Mapping[str, Mapping[str, str]] = {"qwen3_moe": {"num_experts": "num_local_experts"}}
"""Names of entries in published files, and those by which they are read."""
OFF: tuple[object, ...] = (None, False, {}, [])
"""Values of an entry that is not known with which it says nothing."""
COUNTS = (
    *("vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings"),
    *("num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
)


def unknown_entry(config: Config) -> tuple[str, object] | None:
    """The first entry of a config that says something and is not known, with its value; or None.

    Args:
        config: the content of config.json, of a family in `DEFAULTS`.
    """
    family = config["model_type"]
    known = WITHOUT_EFFECT | ROPE | {"layer_types"} | DEFAULTS[family].keys()
    known |= FURTHER.get(family, frozenset())
    unknown = ((name, value) for name, value in config.items() if name not in known)
    return next((entry for entry in unknown if not _is_off(entry[1])), None)


def complete_config(config: Config) -> Config:
    """The config with Transformers' default for each entry that it lacks; of a family in `DEFAULTS`."""
    complete = {**DEFAULTS[config["model_type"]], **config}
    for other, name in OTHER_NAMES.get(config["model_type"], {}).items():
        if other in config:
            complete[name] = config[other]
    if complete["num_key_value_heads"] is None:
        complete["num_key_value_heads"] = complete["num_attention_heads"]
    return complete


def impossible_entry(config: Config) -> tuple[str, object] | None:
    """The first size of a complete config that is no number above 0, with its value; or None."""
    head = () if config["head_dim"] is None else ("head_dim",)
    for name in (*COUNTS, *head):
        if not is_count(config[name]):
            return name, config[name]
    name = "rms_norm_eps" if "rms_norm_eps" in config else "layer_norm_eps"
    is_number = isinstance(config[name], int | float) and 0 < config[name] < math.inf
    return None if is_number else (name, config[name])


def is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_off(value: object) -> bool:
    return any(value is one or (type(value) is type(one) and value == one) for one in OFF)
