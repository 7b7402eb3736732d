"""What the packed step says it can and cannot train."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, GPT2Config

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.packed.decoder_config import read_decoder_config, why_not_packed

from .conftest import SIZES, tiny_model

LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "short_factor": [1.0] * 6,
    "long_factor": [2.0] * 6, "original_max_position_embeddings": 16,
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "no gelu activation": ("llama", {"hidden_act": "gelu"}),
    "attention dropout 0.1": ("llama", {"attention_dropout": 0.1}),
    "no longrope rotary": ("llama", {"rope_parameters": LONGROPE}),
    "Only 0.5 of each head": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "not a causal language model": ("qwen2", {"architectures": ["Qwen2ForSequenceClassification"]}),
    "quantised": ("qwen2", {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
    "beyond 64 tokens": (
        "llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_says_why(reason: str) -> None:
    family, overrides = REFUSED[reason]
    config = AutoConfig.for_model(family, **{**SIZES, **overrides})
    assert reason in (why_not_packed(config, max_seq_length=65) or "")


def test_another_architecture_is_refused_by_its_name() -> None:
    assert why_not_packed(GPT2Config()) == "The packed step has no gpt2 layers."


@pytest.mark.parametrize("modules", [("q_proj", "lm_head"), "lm_head"])
def test_lora_on_the_head_is_refused(modules: str | tuple[str, ...]) -> None:
    config = AutoConfig.for_model("llama", **SIZES)
    reason = why_not_packed(config, lora=LoraGroup(target_modules=modules))
    assert reason == "The packed step has no LoRA on lm_head."


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3"])
def test_the_rotary_frequencies_are_those_of_the_model(family: str) -> None:
    model = tiny_model(family, head_dim=12)
    assert torch.equal(read_decoder_config(model.config).inverse_frequencies, model.model.rotary_emb.inv_freq)


def test_parameters_count_every_matrix() -> None:
    model = tiny_model("mistral")
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    assert read_decoder_config(model.config).parameters == matrices
