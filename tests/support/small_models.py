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
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(tokenizer / name, folder / name)
    return folder


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """A PEFT adapter of rank 4 on all linear layers, with both matrices random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | settings
    )
    adapted: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.1)
    adapted.save_pretrained(folder)
    return folder
