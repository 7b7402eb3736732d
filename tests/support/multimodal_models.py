"""Tiny random multimodal models: a language model of some type with a vision part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

TEXT: dict[str, Any] = dict(
    vocab_size=128,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
VISION = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "image_size": 16, "patch_size": 8,
}  # fmt: skip
QWEN_VISION = {
    "depth": 1, "hidden_size": 16, "embed_dim": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 8,
    "out_hidden_size": 48, "fullatt_block_indexes": [0], "deepstack_visual_indexes": [0],
}  # fmt: skip
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 2, 2]}}
PACKED: dict[str, dict[str, Any]] = {
    "gemma3": {"model_type": "gemma3_text", "head_dim": 16, "query_pre_attn_scalar": 16},
    "gemma4": {
        "head_dim": 16,
        "global_head_dim": 32,
        "hidden_size_per_layer_input": 24,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 300,
        "final_logit_softcapping": 3.0,
    },
    "gemma4_unified": {"head_dim": 16, "global_head_dim": 32, "attention_k_eq_v": True},
    "mistral3": {"model_type": "mistral"},
    "llava": {"model_type": "llama"},
    "internvl": {"model_type": "qwen2"},
    "smolvlm": {"model_type": "llama"},
    "idefics3": {"model_type": "llama"},
}
OTHERS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": MROPE,
    "qwen3_5": {"num_hidden_layers": 4},
    "llama4": {"intermediate_size_mlp": 48, "num_local_experts": 2, "head_dim": 12},
}


def multimodal_model(family: str, text: dict[str, Any] | None = None, **outside: Any) -> Any:
    """In fp32; `text` and `outside` change its text_config and config."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    vision = QWEN_VISION if family.startswith("qwen") else VISION
    inside = {**TEXT, **(PACKED | OTHERS)[family], **(text or {})}
    config = AutoConfig.for_model(family, text_config=inside, vision_config=vision, **outside)
    torch.manual_seed(0)
    model: Any = AutoModelForImageTextToText.from_config(config).float().eval()
    for parameter in model.parameters():
        noise = torch.randn_like(parameter) * 0.1
        parameter.data = parameter.data + noise if parameter.dim() == 1 else noise
    return model


def save_with_tokenizer(model: Any, folder: Path, tokenizer_of: Path) -> Path:
    """The model in `folder`, with the tokenizer of another one."""
    ignored = shutil.ignore_patterns("*.safetensors", "config.json")
    shutil.copytree(tokenizer_of, folder, ignore=ignored)
    model.save_pretrained(folder)
    return folder


def vocabulary_of(folder: Path) -> int:
    return json.loads((folder / "config.json").read_text("utf-8"))["vocab_size"]
