"""What the packed step says it can and cannot train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, GPT2Config

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.packed.decoder_config import read_decoder_config
from backpropagate.training.engine.select_engine import select_engine
from backpropagate.training.planning.engine_choice import own_engine, why_not_packed

from .conftest import SIZES, tiny_model

LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0, "short_factor": [1.0] * 6,
    "long_factor": [2.0] * 6, "original_max_position_embeddings": 16,
}  # fmt: skip
PHI = {**LONGROPE, "short_factor": [1.0] * 6, "partial_rotary_factor": 1.0}
YARN = {
    "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16,
    "llama_4_scaling_beta": 0.1,
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
    "residual dropout 0.1": ("phi3", {"resid_pdrop": 0.1}),
    "LongRoPE's rotary scaling changes beyond 16 tokens": (
        "phi3", {"rope_parameters": PHI, "original_max_position_embeddings": 16},
    ),
    "Queries are scaled by their position beyond 16 tokens": ("ministral3", {"rope_parameters": YARN}),
    "The routers are trained with noise 0.1": ("mixtral", {"router_jitter_noise": 0.1}),
    "no such quantised weights of experts": (
        "mixtral", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    ),
    "larger than the packed step can address": (
        "mixtral", {"num_local_experts": 512, "hidden_size": 8192, "intermediate_size": 8192},
    ),
    "no quick_gelu activation": ("gemma2", {"hidden_activation": "quick_gelu"}),
    "Only 100 of 128 tokens have embeddings for each layer": (
        "gemma4_text", {"vocab_size_per_layer_input": 100},
    ),
    "beyond 64 tokens": (
        "llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refusal_says_why(reason: str) -> None:
    family, overrides = REFUSED[reason]
    config = AutoConfig.for_model(family, **{**SIZES, **overrides})
    assert reason in (why_not_packed(config.to_dict(), max_seq_length=65) or "")


def test_another_architecture_is_refused_by_its_name() -> None:
    assert why_not_packed(GPT2Config().to_dict()) == "The packed step has no gpt2 layers."


@pytest.mark.parametrize("modules", [("q_proj", "lm_head"), "lm_head"])
def test_lora_on_the_head_is_refused(modules: str | tuple[str, ...]) -> None:
    config = AutoConfig.for_model("llama", **SIZES)
    reason = why_not_packed(config.to_dict(), lora=LoraGroup(target_modules=modules))
    assert reason == "The packed step has no LoRA on lm_head."


ON_EXPERTS = ("experts.gate_up_proj", "experts.down_proj")
EXPERT_REASONS: dict[str, tuple[LoraGroup, str | None]] = {
    "attention": (LoraGroup(), None),
    "experts": (LoraGroup(target_modules=ON_EXPERTS), None),
    "dropout on attention": (LoraGroup(dropout=0.1), None),
    "dropout on experts": (LoraGroup(dropout=0.1, target_modules=ON_EXPERTS), "PEFT has no dropout"),
    "no dense layers": (LoraGroup(target_modules=("q_proj", "up_proj")), "no LoRA on up_proj"),
    "another parent": (LoraGroup(target_modules=("mlp.up_proj",)), "no LoRA on mlp.up_proj"),
}


@pytest.mark.parametrize("case", EXPERT_REASONS)
def test_what_can_have_a_lora_in_a_model_with_experts(case: str) -> None:
    lora, reason = EXPERT_REASONS[case]
    config = AutoConfig.for_model("qwen3_moe", **SIZES).to_dict()
    found = why_not_packed(config, lora=lora)
    assert found is None if reason is None else reason in (found or "")


def test_what_is_trained_of_a_model_with_experts_is_said() -> None:
    config = AutoConfig.for_model("glm4_moe", **SIZES).to_dict()
    settings: dict[str, Any] = {"load_in_4bit": False, "max_seq_length": 64}
    _, by_default = own_engine(config, LoraGroup(), **settings)
    assert "LoRA on attention, dense layers, the shared MLP, not on experts" in by_default
    assert "the auxiliary loss that balances experts is off" in by_default
    lora = LoraGroup(r=4, target_modules=("o_proj", "experts.gate_up_proj"))
    _, on_experts = own_engine(config, lora, **settings)
    said = (
        "LoRA on attention, experts.gate_up_proj of each of 128 experts (rank 4 each; gate and up share one)"
    )
    assert said in on_experts


def test_gpt_oss_as_it_is_published_is_packed() -> None:
    published = {
        "model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "attention_bias": True,
        "attention_dropout": 0.0, "experts_per_token": 4, "head_dim": 64, "hidden_act": "silu",
        "hidden_size": 2880, "initial_context_length": 4096, "intermediate_size": 2880,
        "layer_types": ["sliding_attention", "full_attention"] * 12, "max_position_embeddings": 131072,
        "num_attention_heads": 64, "num_experts_per_tok": 4, "num_hidden_layers": 24,
        "num_key_value_heads": 8, "num_local_experts": 32, "output_router_logits": False,
        "quantization_config": {"modules_to_not_convert": ["lm_head"], "quant_method": "mxfp4"},
        "rms_norm_eps": 1e-05, "rope_theta": 150000, "router_aux_loss_coef": 0.9, "sliding_window": 128,
        "rope_scaling": {"beta_fast": 32.0, "beta_slow": 1.0, "factor": 32.0, "rope_type": "yarn",
                         "original_max_position_embeddings": 4096, "truncate": False},
        "swiglu_limit": 7.0, "tie_word_embeddings": False, "use_cache": True, "vocab_size": 201088,
    }  # fmt: skip
    assert own_engine(published, LoraGroup(), load_in_4bit=False, max_seq_length=8192)[0] == "packed"


def test_lora_on_modules_that_a_family_has_fused_is_refused() -> None:
    config = AutoConfig.for_model("phi3", **SIZES).to_dict()
    assert why_not_packed(config, lora=LoraGroup(target_modules=("qkv_proj", "o_proj"))) is None
    reason = why_not_packed(config, lora=LoraGroup(target_modules=("q_proj", "gate_up_proj")))
    assert reason == "The packed step has no LoRA on q_proj."


def test_phi_4_mini_as_it_is_published_is_packed_within_its_original_positions(tmp_path: Path) -> None:
    rope = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.1] * 48}
    published = {
        "model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "hidden_size": 3072, "vocab_size": 128,
        "num_attention_heads": 24, "num_key_value_heads": 8, "intermediate_size": 128, "rope_theta": 1e4,
        "num_hidden_layers": 2, "max_position_embeddings": 131072, "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 4096, "rope_scaling": rope, "sliding_window": 262144,
        "full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True, "resid_pdrop": 0.0, "embd_pdrop": 0.0,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(published))

    def engine(max_seq_length: int) -> tuple[str, str]:
        return select_engine(tmp_path, LoraGroup(), load_in_4bit=False, max_seq_length=max_seq_length)

    assert engine(4096)[0] == "packed"
    assert engine(4097) == ("autograd", "LongRoPE's rotary scaling changes beyond 4096 tokens.")


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3"])
def test_the_rotary_frequencies_are_those_of_the_model(family: str) -> None:
    model = tiny_model(family, head_dim=12)
    assert torch.equal(
        read_decoder_config(model.config).rotations[0].inverse_frequencies, model.model.rotary_emb.inv_freq
    )


def test_parameters_count_every_matrix() -> None:
    model = tiny_model("mistral")
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n)
    assert read_decoder_config(model.config).parameters == matrices
