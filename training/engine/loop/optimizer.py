"""AdamW over the one flat buffer of all LoRA matrices."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ..lora_parameters import LoraParameters

MOMENTS = ("exp_avg", "exp_avg_sq")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class FlatAdamW:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) in one fused kernel.

    The kernel is that of torch.optim.AdamW(fused=True), without that class: to make one imports torch's
    compiler, which takes a second. Its memory is taken at once, so that no step can run out of it.
    """

    def __init__(self, lora: LoraParameters, weight_decay: float) -> None:
        self.lora = lora
        self._weight_decay = weight_decay
        self._state: dict[str, Tensor] = {
            "step": torch.zeros((), dtype=torch.float32, device=lora.values.device),
            **{name: torch.zeros_like(lora.values) for name in MOMENTS},
        }

    def step(self, learning_rate: float, max_grad_norm: float) -> Tensor:
        """Clip the gradient to `max_grad_norm` (0 is off), update the values, clear the gradient.

        Returns:
            The gradient's norm before clipping, a scalar on the device.
        """
        norm = cast("Tensor", torch.linalg.vector_norm(self.lora.gradients))  # pyright: ignore[reportUnknownMemberType]
        if max_grad_norm > 0:
            self.lora.gradients.mul_(torch.clamp(max_grad_norm / (norm + 1e-6), max=1.0))
        self._state["step"] += 1
        torch._fused_adamw_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
            [self.lora.values], [self.lora.gradients], [self._state["exp_avg"]], [self._state["exp_avg_sq"]],
            [], [self._state["step"]], lr=learning_rate, beta1=BETA1, beta2=BETA2, eps=EPSILON,
            weight_decay=self._weight_decay, amsgrad=False, maximize=False,
        )  # fmt: skip
        self.lora.gradients.zero_()
        return norm

    def tensors(self) -> dict[str, Tensor]:
        """The optimizer's state, to be stored."""
        return dict(self._state)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take over a stored state."""
        for name, tensor in self._state.items():
            tensor.copy_(tensors[name])
