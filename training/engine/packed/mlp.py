"""A layer's MLP: gated, dense. Layers with experts have `sparse_mlp` instead.

    forward(x)                      → the update of the residual stream, and what to keep
    lighter(saved)                  → of what was kept, all but gate and up, which are then computed again
    backward(d_update, saved, read) → the gradient of x, and what writes the LoRA's gradients once x is known

x is known only after the norm before the MLP has been differentiated, which makes it again; `read` makes it
sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from .gated_activations import GatedActivation
from .lora_linear import LoraLinear, Masks

MlpMasks = tuple[Masks | None, Masks | None]
"""Of gate and up, and of down."""
WriteGradients = Callable[[Tensor], None]
"""Writes them, given x."""


class SavedMlp(NamedTuple):
    gate_up: Tensor | None  # (tokens, 2 · intermediate_size); None is computed again
    gate_up_lora_hidden: Tensor  # (tokens, R)
    down_proj_lora_hidden: Tensor  # (tokens, R)


class DenseMlp:
    """down(activation(gate) · up)."""

    def __init__(self, gate_up: LoraLinear, down_proj: LoraLinear, activation: GatedActivation) -> None:
        self.gate_up, self.down_proj = gate_up, down_proj  # hidden_size → 2 · intermediate_size → hidden_size
        self.activation = activation

    def linears(self) -> tuple[LoraLinear, ...]:
        return self.gate_up, self.down_proj

    def forward(self, x: Tensor, masks: MlpMasks) -> tuple[Tensor, SavedMlp]:
        gate_up, gate_up_lora_hidden = self._gate_up(x, masks)  # (tokens, 2 · intermediate_size)
        activation = self._activate(gate_up, gate_up_lora_hidden)
        update, down_proj_lora_hidden = self.down_proj.forward(activation, masks[1])
        return update, SavedMlp(gate_up, gate_up_lora_hidden, down_proj_lora_hidden)

    def lighter(self, saved: SavedMlp) -> SavedMlp:
        return saved._replace(gate_up=None)

    def backward(
        self, d_update: Tensor, saved: SavedMlp, read: Callable[[], Tensor], masks: MlpMasks
    ) -> tuple[Tensor, WriteGradients]:
        # d_activation: (tokens, intermediate_size)
        d_activation, d_lora_hidden = self._down_backward(d_update, masks)
        gate_up = saved.gate_up
        if gate_up is None:
            gate_up, _ = self._gate_up(read(), masks)
        d_gate_up = self._activate_backward(
            d_activation, d_lora_hidden, gate_up, saved.gate_up_lora_hidden, masks
        )
        # The widest tensors of the layer: each goes before the next one is made, or memory peaks here.
        del d_activation, gate_up
        self.down_proj.write_b_gradients(d_update, saved.down_proj_lora_hidden)
        del d_update
        dx, d_gate_up_lora_hidden = self.gate_up.backward(d_gate_up, masks[0])  # (tokens, hidden_size)

        def write(x: Tensor) -> None:
            self.gate_up.write_a_gradient(d_gate_up_lora_hidden, x, masks[0])

        return dx, write

    # What an MLP does otherwise whose kernels add the LoRA's parts, or make its gradients.

    def _gate_up(self, x: Tensor, masks: MlpMasks) -> tuple[Tensor, Tensor]:
        """What is kept of gate and up, and x·Aᵀ."""
        return self.gate_up.forward(x, masks[0])

    def _activate(self, gate_up: Tensor, lora_hidden: Tensor) -> Tensor:
        """The activation, (tokens, intermediate_size), of what `_gate_up` gives."""
        return self.activation.forward(gate_up)

    def _down_backward(self, d_update: Tensor, masks: MlpMasks) -> tuple[Tensor, Tensor]:
        """What is known of the activation's gradient, and the gradient of A·activation."""
        return self.down_proj.backward(d_update, masks[1])

    def _activate_backward(
        self,
        d_activation: Tensor,
        d_down_lora_hidden: Tensor,
        gate_up: Tensor,
        lora_hidden: Tensor,
        masks: MlpMasks,
    ) -> Tensor:
        """The gradient of gate and up; that of down's A and those of the B of gate and up are written."""
        activation, d_gate_up = self.activation.backward(d_activation, gate_up)
        self.down_proj.write_a_gradient(d_down_lora_hidden, activation, masks[1])
        del activation
        self.gate_up.write_b_gradients(d_gate_up, lora_hidden)
        return d_gate_up
