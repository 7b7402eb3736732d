"""AdamW over the one flat buffer of all LoRA matrices."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..lora_parameters import LoraParameters

MOMENTS = ("exp_avg", "exp_avg_sq")


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one fused kernel, β = (0.9, 0.999), ε = 1e-8.

    Its memory is taken at once, so that no optimizer step can run out of it.
    """

    def __init__(self, lora: LoraParameters, weight_decay: float) -> None:
        self.lora = lora
        self._parameter = torch.nn.Parameter(lora.values)  # shares the buffer's memory
        self._parameter.grad = lora.gradients
        self._adamw = torch.optim.AdamW([self._parameter], weight_decay=weight_decay, fused=True)
        self._state: dict[str, Tensor] = {
            "step": torch.zeros((), dtype=torch.float32, device=lora.values.device),
            **{name: torch.zeros_like(lora.values) for name in MOMENTS},
        }
        self._adamw.state[self._parameter] = self._state

    def step(self, learning_rate: float, max_grad_norm: float) -> Tensor:
        """Clip the gradient to `max_grad_norm` (0 is off), update the values, clear the gradient.

        Returns:
            The gradient's norm before clipping, a scalar on the device.
        """
        norm = cast("Tensor", torch.linalg.vector_norm(self.lora.gradients))  # pyright: ignore[reportUnknownMemberType]
        if max_grad_norm > 0:
            self.lora.gradients.mul_(torch.clamp(max_grad_norm / (norm + 1e-6), max=1.0))
        self._adamw.param_groups[0]["lr"] = learning_rate
        self._adamw.step()  # pyright: ignore[reportUnknownMemberType]
        self.lora.gradients.zero_()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state, to be stored."""
        return dict(self._state)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over a stored state."""
        for name, tensor in self._state.items():
            tensor.copy_(tensors[name])
