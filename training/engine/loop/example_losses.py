"""The loss of each example on its own, though many go through the model together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from ...data.tokens.example import Example
from .batch import PackedBatch, packed_batch
from .packing import WINDOW, micro_batches
from .step import Measures


class ExampleLoss(NamedTuple):
    """The sum of an example's cross-entropies in nats, and the number of label tokens that it is over."""

    total: float
    label_tokens: int


def example_losses(model: Measures, examples: Sequence[Example], budget: int) -> list[ExampleLoss]:
    """The losses of `examples`, in their order.

    Args:
        budget: most tokens that go through the model at once; a longer example goes alone.
    """
    found = [ExampleLoss(0.0, 0)] * len(examples)
    for indices in _packed_together(examples, budget, model.row_border):
        batch = packed_batch([examples[i] for i in indices], multiple=model.row_multiple)
        if batch.label_tokens:
            for index, loss in zip(indices, _by_example(model, batch.to(model.device)), strict=True):
                found[index] = loss
    return found


def _packed_together(examples: Sequence[Example], budget: int, border: int | None) -> Iterator[list[int]]:
    for start in range(0, len(examples), WINDOW):
        lengths = [len(example.input_ids) for example in examples[start : start + WINDOW]]
        for items in micro_batches(lengths, budget, border):
            yield [start + item for item in items]


def _by_example(model: Measures, batch: PackedBatch) -> list[ExampleLoss]:
    example = batch.example_of_label  # (label_tokens,)
    totals = torch.zeros(batch.examples, dtype=torch.float64, device=model.device)
    totals.index_add_(0, example, model.label_losses(batch).double())
    counts = torch.bincount(example, minlength=batch.examples)
    pairs = zip(totals.cpu().numpy(), counts.cpu().numpy(), strict=True)
    return [ExampleLoss(float(total), int(count)) for total, count in pairs]
