"""The MLP's gated activations, forward and backward, by their name in a config."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .decoder_config import DecoderConfig
from .fused_ops import fused_on_cuda, kernel_on_cuda, swiglu, swiglu_backward


class GatedActivation(NamedTuple):
    """activation(gate) · up, where gate_up is (tokens, 2 · intermediate_size)."""

    forward: Callable[[Tensor], Tensor]
    """The activation, (tokens, intermediate_size)."""
    backward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Of d_activation and gate_up: the activation again, and the gradient of gate_up."""


@kernel_on_cuda("gated_mlp_kernel", "activated", gelu=True)
def geglu(gate_up: Tensor) -> Tensor:
    """gelu(gate) · up with the tanh form of GELU (Shazeer 2020, arXiv:2002.05202)."""
    gate, up = gate_up.chunk(2, -1)
    return (F.gelu(gate.float(), approximate="tanh") * up.float()).to(gate_up.dtype)


@fused_on_cuda
def geglu_backward(d_activation: Tensor, gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """With t = tanh(√(2/π)·(x + 0.044715·x³)): gelu = x·(1 + t)/2, and its derivative is
    (1 + t)/2 + x·(1 - t²)/2 · √(2/π)·(1 + 0.134145·x²)."""
    gate, up = (half.float() for half in gate_up.chunk(2, -1))  # each (tokens, intermediate_size)
    d = d_activation.float()
    slope = math.sqrt(2 / math.pi)
    t = torch.tanh(slope * (gate + 0.044715 * gate.pow(3)))
    half = 0.5 * (1 + t)
    gelu = gate * half
    derivative = half + 0.5 * gate * (1 - t * t) * slope * (1 + 3 * 0.044715 * gate.pow(2))
    d_gate_up = torch.cat([d * up * derivative, d * gelu], -1).to(gate_up.dtype)
    return (gelu * up).to(gate_up.dtype), d_gate_up


ACTIVATIONS: Mapping[str, GatedActivation] = {
    "silu": GatedActivation(swiglu, swiglu_backward),
    "swish": GatedActivation(swiglu, swiglu_backward),
    "gelu_pytorch_tanh": GatedActivation(geglu, geglu_backward),
}


def expert_activation(config: DecoderConfig) -> GatedActivation:
    """Of the experts of a model."""
    if config.experts is not None and config.experts.family.activation == "clamped_swiglu":
        return clamped_swiglu(*config.activation_limits)
    return ACTIVATIONS[config.activation]


def clamped_swiglu(alpha: float, limit: float) -> GatedActivation:
    """gate · sigmoid(alpha · gate) · (up + 1), both clamped at limit, the gate above only (gpt-oss).

    gate_up has them by turns: gate, up, gate, up, ….
    """

    @fused_on_cuda
    def forward(gate_up: Tensor) -> Tensor:
        gate, up = gate_up[:, ::2].float(), gate_up[:, 1::2].float()
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return (gate * torch.sigmoid(alpha * gate) * (up + 1)).to(gate_up.dtype)

    @fused_on_cuda
    def backward(d_activation: Tensor, gate_up: Tensor) -> tuple[Tensor, Tensor]:
        whole_gate, whole_up = gate_up[:, ::2].float(), gate_up[:, 1::2].float()  # each (rows, width)
        gate, up = whole_gate.clamp(max=limit), whole_up.clamp(-limit, limit)
        d, sigmoid = d_activation.float(), torch.sigmoid(alpha * gate)
        glu = gate * sigmoid
        d_gate = d * (up + 1) * (sigmoid + alpha * glu * (1 - sigmoid)) * (whole_gate <= limit)
        d_up = d * glu * (whole_up.abs() <= limit)
        d_gate_up = torch.stack([d_gate, d_up], -1).flatten(1)  # (rows, 2 · width)
        return (glu * (up + 1)).to(gate_up.dtype), d_gate_up.to(gate_up.dtype)

    return GatedActivation(forward, backward)
