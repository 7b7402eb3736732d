"""Loss and LoRA gradients of the packed decoder against Hugging Face + PEFT, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import GptOssConfig

from backpropagate.training.config.fields import Recompute
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.decoder_config import read_decoder_config
from backpropagate.training.engine.packed.load_weights import load_weights
from backpropagate.training.engine.plan import Example
from backpropagate.training.models.decoder_families import FAMILIES
from backpropagate.training.planning.engine_choice import why_not_packed

from .conftest import tiny_model, with_lora

TOLERANCE = 1e-5
MODES: tuple[Recompute, ...] = ("nothing", "gate_up", "everything")


def packed_copy(adapted: Any, folder: Path, lora: LoraGroup) -> PackedDecoder:
    """The packed decoder of a saved base model, with the LoRA values of its PEFT twin."""
    decoder = PackedDecoder(read_decoder_config(adapted.config), lora, torch.float32, torch.device("cpu"))
    load_weights(decoder, folder)
    values = dict(adapted.named_parameters())
    for name, matrix in decoder.lora.matrices(decoder.lora.values).items():
        matrix.copy_(values[f"base_model.model.{name}.default.weight"].data)
    decoder.refresh()
    return decoder


def peft_loss_and_gradients(
    adapted: Any, examples: Sequence[Example]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Each example alone, unpadded; the mean over all label tokens."""
    labels = sum(label != -100 for example in examples for label in example.labels[1:])
    total = 0.0
    for example in examples:
        logits = adapted(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        loss = F.cross_entropy(logits, torch.tensor(example.labels[1:]), reduction="sum") / labels
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in adapted.named_parameters() if p.grad is not None}


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def assert_same(
    decoder: PackedDecoder,
    adapted: Any,
    examples: Sequence[Example],
    recompute: Recompute = "nothing",
    multiple: int = 1,
) -> None:
    batch = packed_batch(examples, multiple=multiple)
    weight = torch.tensor(1 / batch.label_tokens)
    decoder.lora.gradients.zero_()
    loss = decoder.forward_backward(batch, weight, seed=0, recompute=recompute)
    adapted.zero_grad()
    expected, gradients = peft_loss_and_gradients(adapted, examples)
    assert float(loss) == pytest.approx(expected, rel=TOLERANCE)
    assert float(decoder.loss(batch) * weight) == pytest.approx(expected, rel=TOLERANCE)
    ours = decoder.lora.matrices(decoder.lora.gradients)
    assert len(ours) == len(gradients)
    for name, gradient in ours.items():
        assert relative(gradient, gradients[f"base_model.model.{name}.default.weight"]) <= TOLERANCE, name


LLAMA3 = dict(
    rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)  # fmt: skip
GEMMA: dict[str, Any] = dict(
    head_dim=16, query_pre_attn_scalar=24, sliding_window=7, attn_logit_softcapping=1.5,
    final_logit_softcapping=3.0,
)  # fmt: skip
GRANITE: dict[str, Any] = dict(
    attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=2.0
)
GEMMA_4: dict[str, Any] = dict(
    head_dim=16, global_head_dim=32, sliding_window=7, num_hidden_layers=3, hidden_size_per_layer_input=0,
    layer_types=["sliding_attention", "full_attention", "full_attention"],
)  # fmt: skip
GEMMA_4_SMALL: dict[str, Any] = {
    **GEMMA_4, "num_hidden_layers": 4, "hidden_size_per_layer_input": 24, "vocab_size_per_layer_input": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip
EXPERTS: dict[str, Any] = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
GEMMA_4_MIXED: dict[str, Any] = {
    **GEMMA_4, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"],
    "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 32,
    "attention_k_eq_v": True, "num_global_key_value_heads": 1,
}  # fmt: skip
LIMIT = 0.3 if hasattr(GptOssConfig, "swiglu_limit") else 7.0  # fixed in transformers 5.17
GPT_OSS: dict[str, Any] = dict(
    num_local_experts=4, num_experts_per_tok=2, head_dim=16, sliding_window=7, swiglu_limit=LIMIT
)
GLM_MOE: dict[str, Any] = dict(
    n_routed_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, head_dim=16, first_k_dense_replace=1
)
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama with a tied head": ("llama", {"tie_word_embeddings": True}),
    "llama with heads wider than hidden": ("llama", {"head_dim": 24}),
    "llama with heads narrower than hidden": ("llama", {"head_dim": 4}),
    "llama without groups": ("llama", {"num_key_value_heads": 4}),
    "llama, linear rope": (
        "llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "llama, dynamic rope": (
        "llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
    ),
    "llama, llama3 rope": ("llama", {"rope_parameters": LLAMA3}),
    "qwen2": ("qwen2", {}),
    "qwen2, tied head, wide and narrow layers": (
        "qwen2", {"tie_word_embeddings": True, "intermediate_size": 32},
    ),
    "qwen2, yarn rope": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0,
                             "original_max_position_embeddings": 16}},
    ),
    "qwen2 with a window on its last layer": (
        "qwen2", {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3 with biases and windows": (
        "qwen3",
        {"head_dim": 16, "attention_bias": True, "use_sliding_window": True, "sliding_window": 5,
         "max_window_layers": 0},
    ),
    "mistral with a window": ("mistral", {"sliding_window": 8}),
    "mistral without a window": ("mistral", {"sliding_window": None}),
    "smollm3, one layer without positions": ("smollm3", {"no_rope_layers": [1, 0]}),
    "gemma 2": ("gemma2", GEMMA),
    "gemma 2 without caps": (
        "gemma2", {**GEMMA, "attn_logit_softcapping": None, "final_logit_softcapping": None},
    ),
    "gemma 3": ("gemma3_text", {**GEMMA, "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma 3, linear rope and capped logits": (
        "gemma3_text",
        {**GEMMA, "layer_types": ["sliding_attention", "full_attention"], "final_logit_softcapping": 2.0,
         "rope_parameters": {
             "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
             "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
         }},
    ),
    "gemma 4": ("gemma4_text", GEMMA_4),
    "gemma 4 31b, values of keys": (
        "gemma4_text",
        {**GEMMA_4, "attention_k_eq_v": True, "num_global_key_value_heads": 1,
         "final_logit_softcapping": 3.0},
    ),
    "gemma 4 26b, experts beside the MLP": ("gemma4_text", GEMMA_4_MIXED),
    "gemma 4 12b, values of keys": (
        "gemma4_unified_text",
        {**GEMMA_4, "attention_k_eq_v": True, "num_global_key_value_heads": 1, "num_kv_shared_layers": 0},
    ),
    "gemma 4 e4b, embeddings of layers and shared keys": (
        "gemma4_text",
        {**GEMMA_4_SMALL, "num_hidden_layers": 5, "num_kv_shared_layers": 3, "final_logit_softcapping": 3.0,
         "layer_types": [*["sliding_attention", "full_attention"], *["sliding_attention"] * 2,
                         "full_attention"]},
    ),
    "gemma 4 e2b, wider layers with shared keys": (
        "gemma4_text",
        {**GEMMA_4, "hidden_size_per_layer_input": 24, "vocab_size_per_layer_input": 128,
         "num_kv_shared_layers": 1, "use_double_wide_mlp": True},
    ),
    "phi 3": ("phi3", {"sliding_window": 9}),
    "phi 4 mini, part of each head rotated": (
        "phi3",
        {"num_attention_heads": 3, "num_key_value_heads": 1,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75}},
    ),
    "phi 3, LongRoPE within the original positions": (
        "phi3",
        {"max_position_embeddings": 512, "original_max_position_embeddings": 64,
         "rope_parameters": {
             "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
             "long_factor": [2.0] * 6, "original_max_position_embeddings": 64,
         }},
    ),
    "olmo 2": ("olmo2", {}),
    "olmo 2 with biases": ("olmo2", {"attention_bias": True}),
    "olmo 3": (
        "olmo3",
        {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"],
         "rope_parameters": {
             "full_attention": {"rope_type": "yarn", "rope_theta": 5e5, "factor": 8.0,
                                "original_max_position_embeddings": 64},
             "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
         }},
    ),
    "granite": ("granite", GRANITE),
    "granite with all biases": ("granite", {**GRANITE, "attention_bias": True, "mlp_bias": True}),
    "glm 4, half of each head rotated": (
        "glm4",
        {"head_dim": 16,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "ministral 3": ("ministral3", {"head_dim": 16}),
    "ministral 3 with a window": ("ministral3", {"head_dim": 16, "sliding_window": 7}),
    "seed-oss": ("seed_oss", {"head_dim": 16, "attention_dropout": 0.0, "residual_dropout": 0.0}),
    "seed-oss with all biases": (
        "seed_oss",
        {"head_dim": 16, "attention_dropout": 0.0, "residual_dropout": 0.0, "attention_out_bias": True,
         "mlp_bias": True},
    ),
    "ernie 4.5": ("ernie4_5", {"head_dim": 16}),
    "ernie 4.5 with biases": ("ernie4_5", {"head_dim": 16, "use_bias": True, "tie_word_embeddings": False}),
    "hunyuan": ("hunyuan_v1_dense", {"head_dim": 16}),
    "hunyuan, scaled base": (
        "hunyuan_v1_dense",
        {"head_dim": 16, "attention_bias": True,
         "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0}},
    ),
    "exaone 4": ("exaone4", {"sliding_window": None, "layer_types": ["full_attention"] * 2}),
    "exaone 4 with windows": (
        "exaone4", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "cohere 2": (
        "cohere2", {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    ),
    "cohere 2 with biases": (
        "cohere2",
        {"sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"], "attention_bias": True,
         "tie_word_embeddings": False},
    ),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "mixtral with a window": ("mixtral", {"num_local_experts": 4, "sliding_window": 7}),
    "qwen 2 moe": ("qwen2_moe", {**EXPERTS, "shared_expert_intermediate_size": 24}),
    "qwen 2 moe, every second layer": (
        "qwen2_moe",
        {**EXPERTS, "shared_expert_intermediate_size": 24, "decoder_sparse_step": 2, "norm_topk_prob": True,
         "use_sliding_window": True, "sliding_window": 7},
    ),
    "qwen 3 moe": ("qwen3_moe", {**EXPERTS, "head_dim": 16, "norm_topk_prob": True}),
    "qwen 3 moe with a dense layer": ("qwen3_moe", {**EXPERTS, "head_dim": 16, "mlp_only_layers": [0]}),
    "gpt-oss": ("gpt_oss", GPT_OSS),
    "gpt-oss, plain rope": (
        "gpt_oss", {**GPT_OSS, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "glm 4 moe": ("glm4_moe", GLM_MOE),
    "glm 4 moe in groups, norms of heads": (
        "glm4_moe",
        {**GLM_MOE, "n_group": 4, "topk_group": 2, "routed_scaling_factor": 1.5, "use_qk_norm": True,
         "n_shared_experts": 2},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_pefts_loss_and_gradients(
    shape: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    family, overrides = SHAPES[shape]
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model(family, **overrides)
    assert why_not_packed(model.config.to_dict(), lora=lora, max_seq_length=64) is None
    adapted = with_lora(model, lora)
    decoder = packed_copy(adapted, saved(model), lora)
    for recompute in MODES:
        assert_same(decoder, adapted, examples(17, 9, 30, 2), recompute)


def test_every_family_is_among_these_shapes() -> None:
    assert {family for family, _ in SHAPES.values()} == FAMILIES.keys()


LORAS = {
    "rank 5, which no tensor core likes": LoraGroup(r=5, alpha=8),
    "rank 16 with rank stabilisation": LoraGroup(r=16, alpha=8, rslora=True),
    "attention only": LoraGroup(r=4, alpha=8, target_modules="attention"),
    "some of the merged modules": LoraGroup(r=4, alpha=4, target_modules=("q_proj", "v_proj", "up_proj")),
    "one module": LoraGroup(r=4, alpha=8, target_modules=("down_proj",)),
}


@pytest.mark.parametrize("option", LORAS)
def test_every_lora_option_gives_pefts_loss_and_gradients(
    option: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LORAS[option]
    model = tiny_model("qwen2")
    adapted = with_lora(model, lora)
    assert_same(packed_copy(adapted, saved(model), lora), adapted, examples(17, 9, 30))


ON_EXPERTS = ("experts.gate_up_proj", "experts.down_proj")
EXPERT_LORAS = {
    "mixtral": ("q_proj", *ON_EXPERTS),
    "qwen3_moe": ("q_proj", "v_proj", "up_proj", "experts.down_proj"),
    "gpt_oss": ON_EXPERTS,
    "glm4_moe": ("o_proj", "gate_proj", "down_proj", "experts.gate_up_proj"),
    "gemma4_text": ("q_proj", "up_proj", *ON_EXPERTS),
}


@pytest.mark.parametrize("family", EXPERT_LORAS)
def test_a_lora_on_experts_gives_pefts_loss_and_gradients(
    family: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=5, alpha=8, target_modules=EXPERT_LORAS[family])
    shape = {
        "glm4_moe": "glm 4 moe",
        "gpt_oss": "gpt-oss",
        "qwen3_moe": "qwen 3 moe with a dense layer",
        "gemma4_text": "gemma 4 26b, experts beside the MLP",
    }
    model = tiny_model(family, **SHAPES[shape.get(family, family)][1])
    assert why_not_packed(model.config.to_dict(), lora=lora, max_seq_length=64) is None
    adapted = with_lora(model, lora)
    decoder = packed_copy(adapted, saved(model), lora)
    for recompute in MODES:
        assert_same(decoder, adapted, examples(17, 9, 30), recompute)


def test_filling_the_row_up_changes_nothing(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    adapted = with_lora(model, lora)
    assert_same(packed_copy(adapted, saved(model), lora), adapted, examples(17, 9), multiple=64)


@pytest.mark.parametrize(
    "shape", ["mistral with a window", "gemma 4 e4b, embeddings of layers and shared keys"]
)
def test_packed_gives_what_the_examples_give_one_by_one(
    shape: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    family, overrides = SHAPES[shape]
    model = tiny_model(family, **overrides)
    decoder = packed_copy(with_lora(model, lora), saved(model), lora)
    made = examples(17, 9, 30, 5)
    whole = packed_batch(made)
    weight = torch.tensor(1 / whole.label_tokens)
    decoder.lora.gradients.zero_()
    together = decoder.forward_backward(whole, weight, seed=0, recompute="nothing")
    gradients = decoder.lora.gradients.clone()
    decoder.lora.gradients.zero_()
    apart = sum(
        decoder.forward_backward(packed_batch([example]), weight, seed=0, recompute="nothing")
        for example in made
    )
    assert float(together) == pytest.approx(float(apart), rel=1e-6)
    assert relative(gradients, decoder.lora.gradients) <= 2e-6


def test_a_big_vocabulary_goes_through_the_head_in_chunks(
    monkeypatch: pytest.MonkeyPatch, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    from backpropagate.training.engine.packed import fused_cross_entropy as label_loss

    monkeypatch.setattr(label_loss, "chunk_rows", lambda *_: 5)
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    adapted = with_lora(model, lora)
    assert_same(packed_copy(adapted, saved(model), lora), adapted, examples(17, 9, 30))


def test_half_precision_stays_close_to_single(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("qwen3", head_dim=12)
    folder = saved(model)
    exact = packed_copy(with_lora(model, lora), folder, lora)
    half = PackedDecoder(exact.config, lora, torch.bfloat16, torch.device("cpu"))
    load_weights(half, folder)
    half.lora.values.copy_(exact.lora.values)
    half.refresh()
    batch = packed_batch(examples(17, 9, 30))
    losses = [
        float(decoder.forward_backward(batch, torch.tensor(1.0), seed=0, recompute="nothing"))
        for decoder in (exact, half)
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert relative(half.lora.gradients, exact.lora.gradients) < 0.05
