"""The learning rate is transformers', the optimizer torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from backpropagate.training.engine.loop.lr_schedule import learning_rate, warmup_steps
from backpropagate.training.engine.loop.optimizer import FlatAdamW
from backpropagate.training.engine.lora_parameters import LoraModule, LoraParameters
from backpropagate.training.engine.plan import Plan

from .conftest import a_plan


def plan(**settings: Any) -> Plan:
    return a_plan(model=Path("m"), adapter=Path("a"), **settings)


@pytest.mark.parametrize("warmup", [0, 5, 30])
@pytest.mark.parametrize(
    ("ours", "theirs"), [("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")]
)
def test_the_learning_rate_is_that_of_transformers(ours: Any, theirs: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=3e-4)
    scheduler = get_scheduler(theirs, optimizer, num_warmup_steps=warmup, num_training_steps=20)
    chosen = plan(learning_rate=3e-4, lr_scheduler=ours, warmup_steps=warmup)
    for step in range(20):
        assert learning_rate(chosen, step, 20) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_a_warmup_ratio_wins_over_warmup_steps() -> None:
    chosen = plan(learning_rate=1.0, warmup_steps=5, warmup_ratio=0.21)
    assert [learning_rate(chosen, step, 10) for step in range(4)] == pytest.approx([0, 1 / 3, 2 / 3, 1])


@pytest.mark.parametrize("limit", [0.0, 0.5, 100.0])
def test_one_flat_buffer_learns_as_many_parameters_do(limit: float) -> None:
    torch.manual_seed(0)
    module = LoraModule("m", 8, 6)
    lora = LoraParameters([(module,)], 4, torch.device("cpu"))
    lora.values.normal_()
    separate = [torch.nn.Parameter(m.clone()) for m in lora.matrices(lora.values).values()]
    flat, reference = FlatAdamW(lora, 0.1), torch.optim.AdamW(separate, lr=1e-2, weight_decay=0.1)
    for _ in range(5):
        lora.gradients.normal_()
        for parameter, gradient in zip(separate, lora.matrices(lora.gradients).values(), strict=True):
            parameter.grad = gradient.clone()
        norm = flat.step(1e-2, limit)
        expected = torch.nn.utils.clip_grad_norm_(separate, limit or float("inf"))
        reference.step()
        assert float(norm) == pytest.approx(float(expected), rel=1e-6)
    for parameter, value in zip(separate, lora.matrices(lora.values).values(), strict=True):
        assert torch.allclose(parameter, value, atol=1e-6)
    assert not lora.gradients.any()


@pytest.mark.parametrize(("total", "expected"), [(1, 0), (9, 0), (30, 3), (50, 5), (1000, 5)])
def test_by_default_a_short_run_warms_up_over_a_tenth_of_its_steps(total: int, expected: int) -> None:
    assert warmup_steps(plan(), total) == expected
