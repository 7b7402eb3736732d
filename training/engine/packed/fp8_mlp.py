"""A SwiGLU MLP between two linears in FP8, which adds the LoRA's wide parts inside the activation.

    gate, up = x·W₁ᵀ + h·B₁ᵀ           h = x·A₁ᵀ, (tokens, R)
    d_activation = dy·W₂ + dh·A₂       dh = dy·B₂

An FP8 product has no place for h·B₁ᵀ and dh·A₂. To add them afterwards reads and writes the widest tensors of
the layer once more, a twentieth of a step of a 7B; here they are computed tile by tile where SwiGLU reads
those tensors anyway. So what is kept of gate and up is x·W₁ᵀ alone.
"""

from __future__ import annotations

from torch import Tensor

from .fp8_linear import Fp8LoraLinear
from .fused_ops import swiglu, swiglu_backward
from .gated_activations import ACTIVATIONS
from .lora_linear import LoraLinear
from .mlp import DenseMlp, MlpMasks


class Fp8SwigluMlp(DenseMlp):
    """A `DenseMlp` of this form, without dropout. Both of its linears have a LoRA."""

    gate_up: Fp8LoraLinear
    down_proj: Fp8LoraLinear

    def _gate_up(self, x: Tensor, masks: MlpMasks) -> tuple[Tensor, Tensor]:
        return self.gate_up.forward_apart(x)

    def _activate(self, gate_up: Tensor, lora_hidden: Tensor) -> Tensor:
        if not gate_up.is_cuda:
            return swiglu(gate_up + lora_hidden @ self.gate_up.b.t())
        from .fp8_swiglu_kernel import swiglu_with_lora

        return swiglu_with_lora(gate_up, lora_hidden, self.gate_up.b)

    def _down_backward(self, d_update: Tensor, masks: MlpMasks) -> tuple[Tensor, Tensor]:
        return self.down_proj.backward_apart(d_update)

    def _activate_backward(
        self, d_activation: Tensor, d_down_lora_hidden: Tensor, gate_up: Tensor, lora_hidden: Tensor
    ) -> tuple[Tensor, Tensor]:
        b, a = self.gate_up.b, self.down_proj.a
        if not gate_up.is_cuda:
            return swiglu_backward(d_activation + d_down_lora_hidden @ a, gate_up + lora_hidden @ b.t())
        from .fp8_swiglu_kernel import swiglu_with_lora_backward

        return swiglu_with_lora_backward(d_activation, d_down_lora_hidden, a, gate_up, lora_hidden, b)


def dense_mlp(gate_up: LoraLinear, down_proj: LoraLinear, activation: str, dropout: float) -> DenseMlp:
    """The MLP of these linears.

    Args:
        activation: of `ACTIVATIONS`.
    """
    made = ACTIVATIONS[activation]
    in_fp8 = isinstance(gate_up, Fp8LoraLinear) and isinstance(down_proj, Fp8LoraLinear)
    fused = in_fp8 and gate_up.group and down_proj.group and made.forward is swiglu and not dropout
    return (Fp8SwigluMlp if fused else DenseMlp)(gate_up, down_proj, made)
