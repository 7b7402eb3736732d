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
}
"""By Transformers' `model_type`; SmolLM and SmolLM2 are of type llama."""

FURTHER: Mapping[str, frozenset[str]] = {
    "gemma2": frozenset({"hidden_act"}),
    "gemma3_text": frozenset({"hidden_act", "sliding_window_pattern", "_sliding_window_pattern"}),
}
"""Entries without a default of their own; Transformers does not read Gemma's hidden_act."""
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
    if complete["num_key_value_heads"] is None:
        complete["num_key_value_heads"] = complete["num_attention_heads"]
    return complete


def impossible_entry(config: Config) -> tuple[str, object] | None:
    """The first size of a complete config that is no number above 0, with its value; or None."""
    head = () if config["head_dim"] is None else ("head_dim",)
    for name in (*COUNTS, *head):
        if not is_count(config[name]):
            return name, config[name]
    eps = config["rms_norm_eps"]
    is_number = isinstance(eps, int | float) and 0 < eps < math.inf
    return None if is_number else ("rms_norm_eps", eps)


def is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_off(value: object) -> bool:
    return any(value is one or (type(value) is type(one) and value == one) for one in OFF)
