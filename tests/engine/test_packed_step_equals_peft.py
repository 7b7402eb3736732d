"""Loss and LoRA gradients of the packed decoder against Hugging Face + PEFT, in fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from backpropagate.training.config.fields import Recompute
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.decoder_config import read_decoder_config, why_not_packed
from backpropagate.training.engine.packed.load_weights import load_weights
from backpropagate.training.engine.plan import Example

from .conftest import tiny_model, with_lora

TOLERANCE = 1e-5


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
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_pefts_loss_and_gradients(
    shape: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    family, overrides = SHAPES[shape]
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model(family, **overrides)
    assert why_not_packed(model.config, lora=lora, max_seq_length=64) is None
    adapted = with_lora(model, lora)
    assert_same(packed_copy(adapted, saved(model), lora), adapted, examples(17, 9, 30, 2))


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


@pytest.mark.parametrize("recompute", ["nothing", "gate_up", "everything"])
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_recomputing_changes_nothing(
    recompute: Recompute, family: str, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model(family, head_dim=12)
    adapted = with_lora(model, lora)
    assert_same(packed_copy(adapted, saved(model), lora), adapted, examples(17, 9, 30), recompute)


def test_filling_the_row_up_changes_nothing(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("llama")
    adapted = with_lora(model, lora)
    assert_same(packed_copy(adapted, saved(model), lora), adapted, examples(17, 9), multiple=64)


def test_packed_gives_what_the_examples_give_one_by_one(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8)
    model = tiny_model("mistral", sliding_window=8)
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
    assert relative(gradients, decoder.lora.gradients) <= 1e-6


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
