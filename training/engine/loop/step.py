"""What the loop needs of a way to compute loss and gradients."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from ..lora_parameters import LoraParameters
from ..peft_adapter import AdapterDescription
from .batch import PackedBatch


class Measures(Protocol):
    """A model whose losses can be measured."""

    device: torch.device
    row_multiple: int
    """Rows are filled up to a multiple of this many tokens."""
    row_border: int | None
    """Examples longer than this do not go through the model together with shorter ones; None: they may."""

    def label_losses(self, batch: PackedBatch) -> Tensor:
        """The cross-entropy at each label position, (label_tokens,), without dropout or gradients."""
        ...


class TrainingStep(Measures, Protocol):
    """A model with LoRA. The loop owns the optimizer; the step only ever adds to `lora.gradients`."""

    name: str
    lora: LoraParameters
    adapter: AdapterDescription
    """What the adapter's config says."""

    def forward_backward(self, batch: PackedBatch, weight: Tensor, *, seed: int) -> Tensor:
        """Add the gradients of weight · Σ cross-entropy, and return that loss, a scalar on the device.

        Args:
            batch: on the device, with at least one label.
            weight: scalar on the device.
            seed: of all randomness in this micro-batch.
        """
        ...

    def loss(self, batch: PackedBatch) -> Tensor:
        """Σ cross-entropy of a batch on the device, without dropout or gradients."""
        ...

    def passes(self, count: int, *, backward: bool) -> AbstractContextManager[None]:
        """All ranks go through the layers so many times, forward or also back.

        Where weights are sharded, a rank that computes fewer passes in the block, or runs out of memory, goes
        through the rest with the others, which need its shards.
        """
        ...

    def refresh(self) -> None:
        """Take over changed LoRA values."""
        ...

    def release(self) -> None:
        """Give back memory that holds what can be made again, such as CUDA graphs."""
        ...
