"""Gated MLPs whose kernels do what the LoRA needs where the widest tensors of a layer are read anyway.

    gate, up = x·W₁ᵀ + h·B₁ᵀ           h = x·A₁ᵀ, (tokens, R)
    d_activation = dy·W₂ + dh·A₂       dh = dy·B₂

The backward's kernel writes the gradients of gate and up, and meanwhile makes those of A₂ and B₁. In plain
steps the activation is written again, and all of them read once more. An FP8 product has no place for h·B₁ᵀ
and dh·A₂ either: the same kernel, and one of the forward, add them tile by tile, so what is kept of gate and
up is x·W₁ᵀ alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...planning.memory import MOST_FUSED_RANK
from .fp8_linear import Fp8LoraLinear
from .gated_activations import ACTIVATIONS
from .gpu_kernels import has_kernels
from .lora_linear import LoraLinear
from .mlp import DenseMlp, MlpMasks

if TYPE_CHECKING:
    from .gated_mlp_kernel import GatedLora


class FusedMlp(DenseMlp):
    """A `DenseMlp` without dropout, whose modules all have a LoRA of at most `MOST_FUSED_RANK`.

    Where there are no kernels it takes the plain steps.
    """

    def _activate_backward(
        self,
        d_activation: Tensor,
        d_down_lora_hidden: Tensor,
        gate_up: Tensor,
        lora_hidden: Tensor,
        masks: MlpMasks,
    ) -> Tensor:
        added = self._added()
        if not has_kernels(gate_up):
            if added is not None:
                b, a = added
                d_activation = d_activation + d_down_lora_hidden @ a
                gate_up = gate_up + lora_hidden @ b.t()
            return super()._activate_backward(d_activation, d_down_lora_hidden, gate_up, lora_hidden, masks)
        from .gated_mlp_kernel import Gradients, gated_backward

        width = gate_up.shape[1] // 2
        b_gradients = [rows for both in self.gate_up.b_gradients for rows in torch.split(both, width)]
        into = Gradients(self.down_proj.a_gradient, *b_gradients)
        return gated_backward(
            d_activation, gate_up, d_down_lora_hidden, lora_hidden, self._lora(), into, added
        )

    def _lora(self) -> GatedLora:
        from .gated_mlp_kernel import GatedLora

        linear, gelu = self.gate_up, self.activation is ACTIVATIONS["gelu_pytorch_tanh"]
        return GatedLora(linear.rank, linear.rank * (len(linear.group) - 1), linear.scale, gelu)

    def _added(self) -> tuple[Tensor, Tensor] | None:
        """B of gate and up and A of down, whose products have yet to be added; None: nothing has."""
        return None


class Fp8Mlp(FusedMlp):
    """Likewise between two linears in FP8."""

    gate_up: Fp8LoraLinear
    down_proj: Fp8LoraLinear

    def _gate_up(self, x: Tensor, masks: MlpMasks) -> tuple[Tensor, Tensor]:
        return self.gate_up.forward_apart(x)

    def _activate(self, gate_up: Tensor, lora_hidden: Tensor) -> Tensor:
        if not has_kernels(gate_up):
            return self.activation.forward(gate_up + lora_hidden @ self.gate_up.b.t())
        from .gated_mlp_kernel import gated_forward

        return gated_forward(gate_up, lora_hidden, self.gate_up.b, self._lora())

    def _down_backward(self, d_update: Tensor, masks: MlpMasks) -> tuple[Tensor, Tensor]:
        return self.down_proj.backward_apart(d_update)

    def _added(self) -> tuple[Tensor, Tensor]:
        return self.gate_up.b, self.down_proj.a


def dense_mlp(gate_up: LoraLinear, down_proj: LoraLinear, activation: str, dropout: float) -> DenseMlp:
    """The MLP of these linears.

    Args:
        activation: of `ACTIVATIONS`.
    """
    with_lora = len(gate_up.group) == len(gate_up.modules) and bool(down_proj.group)
    if not with_lora or dropout or gate_up.rank > MOST_FUSED_RANK:
        made = DenseMlp
    elif isinstance(gate_up, Fp8LoraLinear) and isinstance(down_proj, Fp8LoraLinear):
        made = Fp8Mlp
    else:
        made = FusedMlp
    return made(gate_up, down_proj, ACTIVATIONS[activation])
