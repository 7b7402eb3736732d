"""The loss of each example on its own, though many go through the model together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from ...data.tokens.example import Example
from ...planning.step_order import micro_batches
from ..out_of_memory import empty_cache, ran_out_of_memory
from .batch import PackedBatch, packed_batch
from .step import Measures


class ExampleLoss(NamedTuple):
    """The sum of an example's cross-entropies in nats, and the number of label tokens that it is over."""

    total: float
    label_tokens: int


@dataclass
class TokenBudget:
    """Most tokens that go at once, fewer once memory has run out; a longer example goes alone."""

    tokens: int


def example_losses(model: Measures, examples: Sequence[Example], budget: TokenBudget) -> list[ExampleLoss]:
    """The losses of `examples`, in their order."""
    found = [ExampleLoss(0.0, 0)] * len(examples)
    lengths = [len(example.input_ids) for example in examples]
    for indices in micro_batches(lengths, budget.tokens, model.row_border):
        losses = _losses_together(model, [examples[i] for i in indices], budget)
        for index, loss in zip(indices, losses, strict=True):
            found[index] = loss
    return found


def _losses_together(model: Measures, examples: Sequence[Example], budget: TokenBudget) -> list[ExampleLoss]:
    """The losses of one batch; in two halves if memory runs out, and so on."""
    batch = packed_batch(examples, multiple=model.row_multiple)
    if not batch.label_tokens:
        return [ExampleLoss(0.0, 0)] * len(examples)
    try:
        return _by_example(model, batch.to(model.device))
    except (RuntimeError, MemoryError) as error:
        if len(examples) == 1 or not ran_out_of_memory(error):
            raise
    # Here the error is gone, and with it the tensors that its traceback held.
    empty_cache(model.device.type)
    budget.tokens = min(budget.tokens, max(1, batch.useful_tokens // 2))
    half = len(examples) // 2
    return [
        loss for part in (examples[:half], examples[half:]) for loss in _losses_together(model, part, budget)
    ]


def _by_example(model: Measures, batch: PackedBatch) -> list[ExampleLoss]:
    example = batch.example_of_label  # (label_tokens,)
    totals = torch.zeros(batch.examples, dtype=torch.float64, device=model.device)
    totals.index_add_(0, example, model.label_losses(batch).double())
    counts = torch.bincount(example, minlength=batch.examples)
    pairs = zip(totals.cpu().numpy(), counts.cpu().numpy(), strict=True)
    return [ExampleLoss(float(total), int(count)) for total, count in pairs]
