"""A base in FP8 on the packed step: its numbers, its gradients beside exact ones, and a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backpropagate.training.config.fields import Recompute
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loaded_model import StepModel
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.open_model import open_model
from backpropagate.training.engine.packed.decoder import PackedDecoder
from backpropagate.training.engine.packed.fp8 import FP8, Fp8Weight, product, quantised
from backpropagate.training.engine.packed.open_decoder import load_decoder
from backpropagate.training.engine.plan import Data, Example
from backpropagate.training.events import never_stop, no_report

from .conftest import a_plan, tiny_model, with_lora
from .test_packed_step_equals_peft import peft_loss_and_gradients, relative

CPU = torch.device("cpu")
LORA = LoraGroup(r=4, alpha=8)
E4M3 = 1 / 16
"""The largest relative error of a number that is rounded to 4 significant bits."""


def fp8_weight(matrix: torch.Tensor) -> Fp8Weight:
    weight = Fp8Weight.empty(*matrix.shape, CPU)
    weight.take(matrix)
    return weight


@pytest.mark.parametrize("size", [1.0, 1e-9, 1e6])
def test_a_number_is_rounded_to_four_bits_whatever_the_size_of_its_row(size: float) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(32, 48) * size * torch.logspace(-4, 4, 32)[:, None]
    made = quantised(matrix)
    assert made.values.dtype is FP8 and made.scales.shape == (32, 1)
    error = (made.dequantised() - matrix).abs()
    # Numbers far below the largest of their row are rounded to a step of their own.
    assert bool((error <= E4M3 * matrix.abs() + matrix.abs().amax(1, keepdim=True) * 2.0**-18).all())


def test_rows_of_zeros_stay_zeros_and_what_is_not_finite_is_not_hidden() -> None:
    assert not quantised(torch.zeros(3, 16)).dequantised().any()
    for wrong in (float("nan"), float("inf")):
        matrix = torch.ones(2, 16)
        matrix[1, 3] = wrong
        assert not product(matrix, fp8_weight(torch.ones(4, 16)).by_rows)[1].isfinite().any()


def test_both_products_of_a_weight_are_those_of_the_rounded_operands() -> None:
    torch.manual_seed(0)
    matrix, x, dy = torch.randn(48, 32) * 0.02, torch.randn(7, 32), torch.randn(7, 48)
    weight, bias = fp8_weight(matrix), torch.randn(48)
    y, dx = product(x, weight.by_rows, bias), product(dy, weight.by_columns)
    assert torch.equal(y, quantised(x).dequantised() @ weight.by_rows.dequantised().t() + bias)
    assert relative(y - bias, x @ matrix.t()) < 0.05
    assert relative(dx, dy @ matrix) < 0.05


# --- A decoder in FP8.


def decoder_of(folder: Path, adapted: Any, lora: LoraGroup = LORA) -> PackedDecoder:
    """The packed decoder of a folder, in FP8, with the LoRA values of its PEFT twin."""
    decoder = load_decoder(folder, lora, "float32", "cpu", in_4bit=False, in_fp8=True)
    values = dict(adapted.named_parameters())
    for name, matrix in decoder.lora.matrices(decoder.lora.values).items():
        matrix.copy_(values[f"base_model.model.{name}.default.weight"].data)
    decoder.refresh()
    return decoder


FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2, tied head": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "phi 3, fused modules": ("phi3", {}),
    "gemma 3": ("gemma3_text", {"head_dim": 16}),
    "cohere 2": ("cohere2", {}),
}


MODES: tuple[Recompute, ...] = ("nothing", "gate_up", "everything")


def our_gradients(decoder: PackedDecoder) -> dict[str, torch.Tensor]:
    return {
        f"base_model.model.{name}.default.weight": gradient
        for name, gradient in decoder.lora.matrices(decoder.lora.gradients).items()
    }


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("recompute", MODES)
def test_but_for_the_rounding_loss_and_gradients_are_those_of_peft(
    family: str,
    recompute: Recompute,
    examples: Callable[..., list[Example]],
    saved: Callable[[Any], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpropagate.training.engine.packed.fp8.FP8", torch.float32)
    kind, overrides = FAMILIES[family]
    model = tiny_model(kind, **overrides)
    adapted = with_lora(model, LORA)
    decoder = decoder_of(saved(model), adapted)
    made = examples(17, 9, 30, 2)
    batch = packed_batch(made)
    weight = torch.tensor(1 / batch.label_tokens)
    loss = decoder.forward_backward(batch, weight, seed=0, recompute=recompute)
    expected, gradients = peft_loss_and_gradients(adapted, made)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for name, gradient in our_gradients(decoder).items():
        assert relative(gradient, gradients[name]) <= 1e-5, name


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_in_fp8_the_gradients_point_the_same_way(
    dropout: float, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8, dropout=dropout)
    model = tiny_model("llama", attention_bias=True)
    folder = saved(model)
    exact = load_decoder(folder, lora, "float32", "cpu", in_4bit=False)
    rounded = load_decoder(folder, lora, "float32", "cpu", in_4bit=False, in_fp8=True)
    batch = packed_batch(examples(17, 9, 30, 2))
    weight = torch.tensor(1 / batch.label_tokens)
    losses: list[float] = []
    for decoder in (exact, rounded):
        torch.manual_seed(3)
        decoder.lora.values.normal_(0, 0.05)
        decoder.refresh()
        losses.append(float(decoder.forward_backward(batch, weight, seed=5, recompute="nothing")))
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    ours, theirs = flat(our_gradients(rounded)), flat(our_gradients(exact))
    assert 0.01 < relative(ours, theirs) < 0.2
    assert float(torch.cosine_similarity(ours, theirs, 0)) > 0.98


def test_a_layer_without_a_lora_passes_gradients_on(
    examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8, target_modules=["q_proj", "down_proj"])
    model = tiny_model("llama")
    adapted = with_lora(model, lora)
    decoder = decoder_of(saved(model), adapted, lora)
    made = examples(17, 30)
    batch = packed_batch(made)
    decoder.forward_backward(batch, torch.tensor(1 / batch.label_tokens), seed=0, recompute="nothing")
    _, gradients = peft_loss_and_gradients(adapted, made)
    assert relative(flat(our_gradients(decoder)), flat(gradients)) < 0.2


# --- A run in FP8, from its plan to the adapter.

LEARNS: dict[str, Any] = {
    "steps": 10, "batch_size": 4, "learning_rate": 2e-2, "lora": LORA, "threads": 1,
}  # fmt: skip


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    lengths = [6 + 7 * i % 25 for i in range(16)]
    return Data(examples(*lengths, vocab=20), examples(20, 9, seed=9, vocab=20))


def test_a_run_in_fp8_learns_what_a_run_without_does_and_answers_with_the_same_weights(
    data: Data, saved: Callable[[Any], Path], tmp_path: Path
) -> None:
    folder = saved(tiny_model("llama", attention_bias=True))
    losses: list[float] = []
    for base in ("auto", "fp8"):
        plan = a_plan(model=folder, adapter=tmp_path / base, base_precision=base, **LEARNS)
        model = open_model(plan, no_report)
        assert isinstance(model, StepModel)
        outcome = model.train(data, no_report, never_stop, Checkpoints(tmp_path / f"c-{base}"))
        assert outcome.eval_loss is not None and outcome.eval_loss_before is not None
        assert outcome.eval_loss < outcome.eval_loss_before - 0.5
        losses.append(outcome.eval_loss)
        ids = torch.tensor([data.held_out[0].input_ids])
        with torch.no_grad():
            logits = model.step.peft_model()(input_ids=ids).logits[0, :-1]
        labels = torch.tensor(data.held_out[0].labels[1:])
        by_peft = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100)
        own = model.losses(data.held_out)[0]
        assert float(by_peft) == pytest.approx(own.total / own.label_tokens, rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], abs=0.05) and losses[1] != losses[0]
