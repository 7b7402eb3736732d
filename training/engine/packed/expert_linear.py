"""The same linear of all experts of a layer, with the LoRA of each.

The frozen weights are one tensor (experts, N, K), used by grouped products of rows sorted by expert. A LoRA
of experts is two small grouped products of its own. Its matrices lie in the LoRA's buffer as PEFT stores them
for a parameter with experts: A (experts · rank, K), and B (N, rank · experts), experts varying the fastest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ...planning.memory import ALIGNMENT
from ..lora_parameters import InputGroup, LoraModule, LoraParameters
from .decoder_config import ExpertLinearSizes
from .expert_products import products_for
from .router import Routed


class MakeExpertLinear(Protocol):
    """Makes the expert linears of a decoder."""

    def __call__(
        self,
        sizes: ExpertLinearSizes,
        layer: str,
        *,
        module: LoraModule | None,
        rank: int,
        scale: float,
        dtype: torch.dtype,
        device: torch.device,
    ) -> ExpertLinear: ...


class ExpertLinear:
    """y = x·W_eᵀ + bias_e + scale·B_e·A_e·x for each row with its expert e.

    Args:
        layer: full name of the layer that it is in.
        module: its LoRA, None without one.
        weight: (experts, N, K) to compute with; None makes one.
    """

    streams = False
    """Whether the weight comes from host memory or other ranks each time."""

    def __init__(
        self,
        sizes: ExpertLinearSizes,
        layer: str,
        *,
        module: LoraModule | None,
        rank: int,
        scale: float,
        dtype: torch.dtype,
        device: torch.device,
        weight: Tensor | None = None,
    ) -> None:
        self.sizes, self.name = sizes, f"{layer}.{sizes.name}"
        self.group: InputGroup = () if module is None else (module,)
        self.rank, self.scale = rank, scale
        self.products = products_for(device, dtype, sizes.inputs, sizes.outputs)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        columns = -(-rank // ALIGNMENT) * ALIGNMENT if module else 0  # R
        self.weight = zeros(sizes.experts, sizes.outputs, sizes.inputs) if weight is None else weight
        self.bias = zeros(sizes.experts, sizes.outputs) if sizes.bias else None
        self.a = zeros(sizes.experts, columns, sizes.inputs)  # (experts, R, K)
        self.b = zeros(sizes.experts, sizes.outputs, columns)  # (experts, N, R), scaled

    def place(self) -> Tensor | None:
        """Where the weight, (experts, N, K), is to be written, if it is kept as it is."""
        return self.weight

    def forget(self) -> None:
        """Nothing to do: all that is computed with is kept."""

    def expand(self) -> None:
        """Let `weight` be the weight; it always is."""

    def bind(self, lora: LoraParameters, gradients: Tensor) -> None:
        """As `FusedLoraLinear.bind`."""
        for module in self.group:
            count, rank = self.sizes.experts, self.rank
            shape_a, shape_b = (count, rank, self.sizes.inputs), (self.sizes.outputs, rank, count)
            self._values = (
                lora.stacked_a(lora.values, self.group).view(shape_a),
                lora.b(lora.values, module).view(shape_b).permute(2, 0, 1),  # (experts, N, rank)
            )
            self._gradients = (
                lora.stacked_a(gradients, self.group).view(shape_a),
                lora.b(gradients, module).view(shape_b).permute(2, 0, 1),
            )

    def refresh(self) -> None:
        """Take over changed LoRA values."""
        if self.group:
            a, b = self._values
            self.a[:, : self.rank].copy_(a)
            self.b[:, :, : self.rank].copy_(b * self.scale)

    def forward(self, x: Tensor, routed: Routed) -> tuple[Tensor, Tensor]:
        """The output without bias, (rows, N), and x·Aᵀ, (rows, R); x is (rows, K)."""
        self.expand()
        y = self.products.rows(x, self.weight, routed.ends)
        if not self.group:
            return y, x.new_empty(len(x), 0)  # a view would keep x
        lora_hidden = self.products.rows(x, self.a, routed.ends)
        return y.add_(self.products.rows(lora_hidden, self.b, routed.ends)), lora_hidden

    def backward(self, dy: Tensor, routed: Routed) -> tuple[Tensor, Tensor]:
        """The gradients of x, (rows, K), and of x·Aᵀ, (rows, R); dy is (rows, N)."""
        self.expand()
        dx = self.products.rows(dy, self.weight.transpose(1, 2), routed.ends)
        if not self.group:
            return dx, dy.new_empty(len(dy), 0)
        d_lora_hidden = self.products.rows(dy, self.b.transpose(1, 2), routed.ends)
        return dx.add_(self.products.rows(d_lora_hidden, self.a.transpose(1, 2), routed.ends)), d_lora_hidden

    def gradients(
        self, dy: Tensor, d_lora_hidden: Tensor, x: Tensor, lora_hidden: Tensor, routed: Routed
    ) -> None:
        """Write the gradients of A and B into the gradient buffer."""
        if not self.group:
            return
        d_a, d_b = self._gradients
        d_a.copy_(self.products.outer(d_lora_hidden, x, routed.ends)[:, : self.rank])
        made = self.products.outer(dy, lora_hidden, routed.ends)[:, :, : self.rank]
        d_b.copy_(made.mul_(self.scale))


def refresh_experts(linears: Sequence[ExpertLinear]) -> None:
    """Copy the LoRA's values into what is computed with; due after each optimizer step."""
    for linear in linears:
        linear.refresh()
