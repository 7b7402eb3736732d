"""Random bases of several families and PEFT adapters for them, small enough to export in a moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def build_base(
    folder: Path,
    tiny_model: Path,
    family: str = "llama",
    dtype: torch.dtype = torch.float32,
    shard: str = "5GB",
    **config: Any,
) -> Path:
    """A random model of a family, with the tokenizer of `tiny_model`.

    Args:
        config: entries of config.json that differ from the usual ones.
    """
    folder.mkdir(parents=True)
    for name in TOKENIZER_FILES:
        shutil.copy(tiny_model / name, folder / name)
    vocabulary = json.loads((tiny_model / "config.json").read_text("utf-8"))["vocab_size"]
    shape = AutoConfig.for_model(family, **(SIZES | {"vocab_size": vocabulary} | config))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shape, dtype=dtype)
    for values in model.parameters():  # biases and norms, too: zeros and ones would hide a mistake
        values.data = (torch.randn(values.shape) * 0.3).to(values.dtype)
    model.save_pretrained(folder, max_shard_size=shard)
    return folder


def build_adapter(folder: Path, base: Path, **config: Any) -> Path:
    """A random LoRA on all linear layers, with numbers of which fp32 loses nothing.

    Args:
        config: entries of PEFT's LoraConfig that differ from the usual ones.
    """
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    peft = get_peft_model(model, LoraConfig(**({"r": 4, "lora_alpha": 8, "target_modules": LINEAR} | config)))
    for name, values in peft.named_parameters():
        if "lora_" in name:
            values.data = torch.randint(-8, 9, values.shape).float() / 64
    peft.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """What PEFT makes of base and adapter in fp32, by the names of the base's weights."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    return PeftModel.from_pretrained(model, adapter).merge_and_unload().state_dict()


def change_json(path: Path, **entries: Any) -> None:
    """Set entries of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | entries), "utf-8")
