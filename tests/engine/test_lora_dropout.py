"""LoRA dropout: each module draws its own mask, and the backward pass draws the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from backpropagate.training.config.fields import Recompute
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.lora_parameters import LoraModule, LoraParameters
from backpropagate.training.engine.packed.lora_linear import FusedLoraLinear, Masks, Refresh
from backpropagate.training.engine.plan import Example

from .conftest import tiny_model, with_lora
from .test_packed_step_equals_peft import packed_copy, relative

CPU = torch.device("cpu")
FURTHER: dict[str, dict[str, Any]] = {
    "gemma3_text": {"head_dim": 16},
    "gemma4_text": dict(
        head_dim=16, global_head_dim=32, hidden_size_per_layer_input=24, vocab_size_per_layer_input=128,
    ),
}  # fmt: skip


class FixedMask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask


def linear(
    inputs: int, *outputs: int, rank: int = 4, scale: float = 2.0
) -> tuple[FusedLoraLinear, LoraParameters]:
    modules = [LoraModule(str(index), inputs, size) for index, size in enumerate(outputs)]
    made = FusedLoraLinear(
        modules, targeted=[True] * len(modules), rank=rank, scale=scale, bias=False,
        dtype=torch.float32, device=CPU,
    )  # fmt: skip
    made.weight.normal_(0, 0.1)
    lora = LoraParameters([made.group], rank, CPU)
    lora.values.normal_(0, 0.1)
    made.bind(lora, lora.gradients)
    Refresh([made])()
    return made, lora


@pytest.mark.parametrize("recompute", ["nothing", "gate_up", "everything"])
@pytest.mark.parametrize("family", ["qwen2", "phi3", "cohere2", "gemma3_text", "gemma4_text"])
def test_with_the_same_masks_loss_and_gradients_are_pefts(
    family: str, recompute: Recompute, examples: Callable[..., list[Example]], saved: Callable[[Any], Path]
) -> None:
    lora = LoraGroup(r=4, alpha=8, dropout=0.3)
    model = tiny_model(family, **FURTHER.get(family, {}))
    adapted = with_lora(model, lora)
    decoder = packed_copy(adapted, saved(model), lora)
    batch = packed_batch(examples(17, 9, 30))
    tokens = len(batch.input_ids)
    modules = dict(adapted.named_modules())
    drawn = [(fused, 77 + 24) for fused in decoder.model_linears()]
    for index, layer in enumerate(decoder.layers):
        for number, fused in enumerate(layer.linears()):
            drawn.append((fused, 77 + 32 * index + 4 * number))
    for fused, seed in drawn:
        masks = Masks(0.3, torch.Generator(), seed)
        for member, module in enumerate(fused.group):
            mask = masks.draw(torch.empty(tokens, module.in_features), member)
            dropout = modules[f"base_model.model.{module.name}"].lora_dropout
            dropout["default"] = FixedMask(mask)
    weight = torch.tensor(1 / batch.label_tokens)
    loss = decoder.forward_backward(batch, weight, seed=77, recompute=recompute)
    logits = adapted(
        input_ids=batch.input_ids[None], position_ids=batch.position_ids[None], use_cache=False
    ).logits[0]
    expected = F.cross_entropy(logits[batch.label_positions], batch.targets)
    expected.backward()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    for name, gradient in decoder.lora.matrices(decoder.lora.gradients).items():
        theirs = adapted.get_parameter(f"base_model.model.{name}.default.weight").grad
        assert relative(gradient, theirs) <= 1e-5, name


@pytest.mark.parametrize("outputs", [(24, 40), (6,)], ids=["wide", "tall"])
def test_dropout_keeps_the_expectation_and_has_the_right_variance(outputs: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    draws, p = 60_000, 0.25
    layer, lora = linear(10, *outputs)
    x = torch.randn(10)
    y, _ = layer.forward(x.expand(draws, 10).contiguous(), Masks(p, torch.Generator(), 5))
    plain, _ = layer.forward(x[None])
    matrices = lora.matrices(lora.values)
    update = torch.cat(
        [2.0 * matrices[f"{i}.lora_B"] @ matrices[f"{i}.lora_A"] for i in range(len(outputs))]
    )  # (N, K)
    variance = p / (1 - p) * (update * x).pow(2).sum(1)
    error = (y.mean(0) - plain[0]) / (variance / draws).sqrt()
    assert error.abs().max() < 4.5
    assert torch.allclose(y.var(0), variance, rtol=0.05)


def test_modules_with_a_common_input_drop_different_parts_of_it() -> None:
    masks = Masks(0.5, torch.Generator(), 3)
    x = torch.ones(50, 20)
    assert not torch.equal(masks.draw(x, 0), masks.draw(x, 1))
    assert torch.equal(masks.draw(x, 0), masks.draw(x, 0))
