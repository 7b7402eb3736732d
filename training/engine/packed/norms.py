"""The norms of decoder layers, by kind: the norm, that of a sum, and the gradient, also with the norm again.

Functions are those of `fused_ops` for Llama's RMSNorm. All take the weight as the checkpoint has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .fused_ops import (
    add_rms_norm,
    fused_on_cuda,
    kernel_on_cuda,
    rms_norm,
    rms_norm_backward,
    rms_norm_gradient,
)


class NormForward(Protocol):
    def __call__(self, hidden: Tensor, weight: Tensor, eps: float, /) -> Tensor: ...


class AddNorm(Protocol):
    def __call__(
        self, hidden: Tensor, update: Tensor, weight: Tensor, eps: float, after: Tensor | None = None, /
    ) -> tuple[Tensor, Tensor]: ...


class NormBackward(Protocol):
    def __call__(
        self, d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float, /
    ) -> tuple[Tensor, Tensor]: ...


class NormGradient(Protocol):
    def __call__(
        self, d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float, /
    ) -> Tensor: ...


class Norm(NamedTuple):
    """One kind of norm over the last dimension."""

    forward: NormForward
    add: AddNorm
    """The sum hidden + update, and its norm; with the weight `after`, of the update's own norm."""
    backward: NormBackward
    """The gradient of hidden plus d_residual, and the norm again."""
    gradient: NormGradient
    """The gradient of `backward` alone, where nobody reads the norm again."""


def _rms_in_fp32(shift: float) -> Norm:
    """(shift + weight) · x / √(mean(x²) + eps), rounded once at the end."""

    @kernel_on_cuda("norm_kernels", "rms_norm", shift=shift, rounded=False)
    def forward(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        x = hidden.float()
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return (normed * (shift + weight.float())).to(hidden.dtype)

    @kernel_on_cuda("norm_kernels", "add_rms_norm", shift=shift, rounded=False)
    def add(
        hidden: Tensor, update: Tensor, weight: Tensor, eps: float, after: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        total = hidden + (update if after is None else forward(update, after, eps))
        x = total.float()
        normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return total, (normed * (shift + weight.float())).to(hidden.dtype)

    @kernel_on_cuda("norm_kernels", "rms_norm_backward", shift=shift, rounded=False)
    def backward(
        d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor]:
        x, w = hidden.float(), shift + weight.float()
        r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)  # (tokens, 1)
        g, normed = d_normed.float() * w, x * r  # (tokens, hidden_size)
        d_hidden = r * (g - normed * (g * normed).mean(-1, keepdim=True))
        if d_residual is not None:
            d_hidden = d_residual.float() + d_hidden
        return d_hidden.to(hidden.dtype), (normed * w).to(hidden.dtype)

    @kernel_on_cuda("norm_kernels", "rms_norm_gradient", shift=shift, rounded=False)
    def gradient(
        d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float
    ) -> Tensor:
        return backward(d_normed, hidden, weight, d_residual, eps)[0]

    return Norm(forward, add, backward, gradient)


@fused_on_cuda
def layer_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight · (x - mean) / √(variance + eps) (Ba et al. 2016, arXiv:1607.06450), without a bias."""
    x = hidden.float()
    x = x - x.mean(-1, keepdim=True)
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return (normed * weight.float()).to(hidden.dtype)


def add_layer_norm(
    hidden: Tensor, update: Tensor, weight: Tensor, eps: float, after: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum hidden + update, and its LayerNorm; with the weight `after`, of the update's own norm."""
    return _sum_and_norm(hidden, update if after is None else layer_norm(update, after, eps), weight, eps)


@fused_on_cuda
def _sum_and_norm(hidden: Tensor, update: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    total = hidden + update
    x = total.float()
    x = x - x.mean(-1, keepdim=True)
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return total, (normed * weight.float()).to(hidden.dtype)


@fused_on_cuda
def layer_norm_backward(
    d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """r·(g - mean(g) - x̂·mean(g·x̂)) with g = d_normed·weight, plus d_residual; and the norm again."""
    x, w = hidden.float(), weight.float()
    x = x - x.mean(-1, keepdim=True)
    r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)  # (tokens, 1)
    g, normed = d_normed.float() * w, x * r  # (tokens, hidden_size)
    d_hidden = r * (g - g.mean(-1, keepdim=True) - normed * (g * normed).mean(-1, keepdim=True))
    if d_residual is not None:
        d_hidden = d_residual.float() + d_hidden
    return d_hidden.to(hidden.dtype), (normed * w).to(hidden.dtype)


def layer_norm_gradient(
    d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float
) -> Tensor:
    """Of `layer_norm_backward` the gradient alone."""
    return layer_norm_backward(d_normed, hidden, weight, d_residual, eps)[0]


NORMS: Mapping[str, Norm] = {
    "rms": Norm(rms_norm, add_rms_norm, rms_norm_backward, rms_norm_gradient),
    "rms_fp32": _rms_in_fp32(0.0),
    "rms_plus_one": _rms_in_fp32(1.0),
    "layer": Norm(layer_norm, add_layer_norm, layer_norm_backward, layer_norm_gradient),
}
"""By `Family.norm`."""
