"""Which of our own two steps trains a model, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..config.specs import LoraGroup
from ..files.atomic_json import read_json
from ..models.known_config import unknown_entry
from ..models.llama_like import FAMILIES
from ..models.tokenizer import load_error
from ..untrusted import quoted
from .packed.decoder_config import why_not_packed


def select_engine(
    model: Path, lora: LoraGroup, *, load_in_4bit: bool, max_seq_length: int
) -> tuple[Literal["packed", "autograd"], str]:
    """packed where the model allows it, else autograd; with the reason in one sentence.

    Args:
        model: folder with config.json.
        max_seq_length: in tokens.
    """
    obstacle = _obstacle(model, lora, load_in_4bit, max_seq_length)
    if obstacle is None:
        return "packed", "our own step: no padding, and the LoRA inside the base's matrix products"
    return "autograd", obstacle


def _obstacle(model: Path, lora: LoraGroup, load_in_4bit: bool, max_seq_length: int) -> str | None:
    from transformers import AutoConfig

    if load_in_4bit:
        return "The packed step computes with whole weights, not in 4 bits."
    entries = read_json(model / "config.json")
    unknown = unknown_entry(entries) if entries.get("model_type") in FAMILIES else None
    if unknown:
        return f"The packed step does not know the entry {quoted(unknown[0])} of config.json."
    auto: Any = AutoConfig  # untyped in transformers
    try:
        config = auto.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its parsers raise
        raise load_error(model, "model", error) from error
    return why_not_packed(config, lora=lora, max_seq_length=max_seq_length)
