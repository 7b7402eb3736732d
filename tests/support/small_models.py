"""Small random models of every family that can be a GGUF, with an adapter that changes all linear layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 128}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "original_max_position_embeddings": 256,
    "long_factor": [1.5] * 8,
    "short_factor": [1.1] * 8,
}
PARTIAL_LONG = {
    **LONG,
    **{"long_factor": [1.5] * 6, "short_factor": [1.1] * 6, "partial_rotary_factor": 0.75},
}
OLMO_YARN = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 500_000.0},
    "full_attention": YARN | {"rope_theta": 500_000.0, "beta_fast": 32, "beta_slow": 1},
}
MINISTRAL = {
    **{"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32},
    **{
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
}
ALPHA = {
    **{"rope_type": "dynamic", "rope_theta": 10_000.0, "alpha": 1000.0, "factor": 1.0, "mscale": 1.0},
    **{"mscale_all_dim": 1.0, "beta_fast": 32, "beta_slow": 1},
}
GEMMA_4 = {
    **{"num_hidden_layers": 9, "head_dim": 32, "global_head_dim": 64, "sliding_window": 16},
    **{"hidden_size_per_layer_input": 32, "vocab_size_per_layer_input": 258},
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 3,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama 3": ("llama", {"rope_parameters": LLAMA_3}),
    "llama with bias, tied": ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "mistral": ("mistral", {"head_dim": 32, "sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2 with yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {"num_hidden_layers": 4}),
    "gemma2": ("gemma2", {"head_dim": 32, "query_pre_attn_scalar": 32}),
    "gemma3": ("gemma3_text", {"head_dim": 32, "query_pre_attn_scalar": 32}),
    "phi3": ("phi3", {}),
    "phi3 with longrope": ("phi3", {"rope_parameters": LONG, "original_max_position_embeddings": 256}),
    "phi-4-mini": (
        "phi3",
        {
            "rope_parameters": PARTIAL_LONG,
            "original_max_position_embeddings": 256,
            "tie_word_embeddings": True,
        },
    ),
    "olmo2": ("olmo2", {}),
    "olmo3": ("olmo3", {"num_hidden_layers": 4, "sliding_window": 16}),
    "olmo3 with yarn": ("olmo3", {"num_hidden_layers": 4, "rope_parameters": OLMO_YARN}),
    "granite": (
        "granite",
        {
            **{"attention_multiplier": 0.2, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
            "logits_scaling": 2.0,
        },
    ),
    "glm4": ("glm4", {"head_dim": 32}),
    "ministral3": ("ministral3", {"head_dim": 32, "rope_parameters": MINISTRAL}),
    "seed_oss": ("seed_oss", {"head_dim": 32}),
    "ernie4_5": ("ernie4_5", {"head_dim": 32}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 32}),
    "hunyuan with alpha": (
        "hunyuan_v1_dense",
        {"head_dim": 32, "rope_parameters": ALPHA, "max_position_embeddings": 32_768},
    ),
    "exaone4": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "exaone4 32b": ("exaone4", {"num_hidden_layers": 64, "sliding_window": 16}),
    "gemma4": (
        "gemma4_text",
        {**GEMMA_4, "num_kv_shared_layers": 3, "use_double_wide_mlp": True, "final_logit_softcapping": 30.0},
    ),
    "gemma4 31b": (
        "gemma4_text",
        {
            **GEMMA_4,
            **{"num_hidden_layers": 3, "layer_types": GEMMA_4["layer_types"][:3]},
            **{"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
        },
    ),
    "gemma4 26b": (
        "gemma4_text",
        {
            **GEMMA_4,
            **{"num_hidden_layers": 3, "layer_types": GEMMA_4["layer_types"][:3]},
            **{"hidden_size_per_layer_input": 0, "attention_k_eq_v": True, "num_global_key_value_heads": 1},
            **{"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32},
        },
    ),
    "gemma4 12b": (
        "gemma4_unified_text",
        {
            **{"num_hidden_layers": 3, "layer_types": GEMMA_4["layer_types"][:3], "sliding_window": 16},
            **{"head_dim": 32, "global_head_dim": 64, "final_logit_softcapping": 30.0},
            "moe_intermediate_size": None,
            **{"attention_k_eq_v": True, "num_global_key_value_heads": 1},
        },
    ),
    "qwen3.5": (
        "qwen3_5_text",
        {
            **{
                "num_hidden_layers": 4,
                "head_dim": 32,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 6,
            },
            **{"linear_key_head_dim": 16, "linear_value_head_dim": 16},
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]},
        },
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "qwen3_moe": (
        "qwen3_moe",
        {
            **{"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
            **{"norm_topk_prob": True, "head_dim": 32},
        },
    ),
    "glm4_moe": (
        "glm4_moe",
        {
            **{"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
            **{"routed_scaling_factor": 1.5, "head_dim": 32, "use_qk_norm": True, "num_hidden_layers": 3},
        },
    ),
    "gpt_oss": (
        "gpt_oss",
        {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32, "sliding_window": 16},
    ),
    "cohere2": ("cohere2", {"num_hidden_layers": 4, "sliding_window": 16, "head_dim": 16, "rotary_pct": 1.0}),
}


def write_small_model(family: str, folder: Path, tokenizer: Path, **sizes: Any) -> Path:
    """A random model of a family, in fp32, with the tokenizer of another folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, settings = FAMILIES[family]
    vocab = len(json.loads((tokenizer / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    config: Any = AutoConfig.for_model(kind, **{**SIZES, "vocab_size": vocab, **settings, **sizes})
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn_like(parameter) * (0.02 if "norm" in name else 0.08))
    if kind == "gemma4_unified_text":
        model.generation_config.suppress_tokens = [5, 6]
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer / name, folder / name)
    return folder


def write_mxfp4_model(folder: Path, tokenizer: Path) -> Path:
    """A random GPT-OSS in the form in which it is published: its experts in 4 bits."""
    import torch
    from safetensors.torch import load_file, save_file

    write_small_model("gpt_oss", folder, tokenizer)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj")]:
        experts, inputs, outputs = weights.pop(name).shape
        shape = (experts, outputs, inputs // 32)
        weights[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
        weights[f"{name}_scales"] = torch.randint(118, 122, shape, dtype=torch.uint8)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


ATTENTION = {"target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]}
EXPERTS = {**ATTENTION, "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]}
TARGETS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("mixtral", "qwen3_moe", "gpt_oss"), EXPERTS),
    "glm4_moe": {
        **ATTENTION,
        "target_parameters": [*EXPERTS["target_parameters"], "mlp.shared_experts.up_proj.weight"],
    },
}
BESIDE_THE_MLP = {**ATTENTION, "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
"""By `model_type`, where an adapter is not on all linear layers: that of experts, too."""
FUSED = ("phi3", "glm4", *TARGETS)
"""`model_type`s with a weight for several matrices."""


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """A PEFT adapter of rank 4 on all linear layers and on experts, with both matrices random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    described = json.loads((base / "config.json").read_text("utf-8"))
    usual = BESIDE_THE_MLP if described.get("enable_moe_block") else {}
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
        | TARGETS.get(described["model_type"], usual)
        | settings
    )
    adapted: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(folder)
    return folder
