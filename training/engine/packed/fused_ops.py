"""The element-wise parts of a decoder layer, forward and backward; on CUDA each is one fused kernel.

Those of the usual families are kernels of our own (`norm_kernels`, `rotation_kernels`, `gated_mlp_kernel`,
`cross_entropy_kernel`): torch's compiler takes seconds to load and to compile, and the host a tenth of a
millisecond for each call of what it has made. What is rarer is compiled by it.

All rows are tokens: `hidden` is (tokens, hidden_size). Sums and squares are taken in fp32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from .gpu_kernels import has_kernels

P = ParamSpec("P")
R = TypeVar("R")


def is_fused(tensor: Tensor) -> bool:
    """Whether what is done with it is compiled."""
    return has_kernels(tensor)


def fused_on_cuda(function: Callable[P, R]) -> Callable[P, R]:
    """Compiled for CUDA tensors, once for all numbers of tokens; as written elsewhere."""

    @cache
    def fused() -> Callable[P, R]:
        return torch.compile(function)  # pyright: ignore[reportUnknownMemberType]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        first = cast("Tensor", args[0])
        if not is_fused(first):
            return function(*args, **kwargs)
        rows = first.size(0)
        for argument in args:
            if isinstance(argument, Tensor) and argument.dim() and argument.size(0) == rows:
                torch._dynamo.maybe_mark_dynamic(argument, 0)  # pyright: ignore[reportPrivateUsage]
        return fused()(*args, **kwargs)

    return call


def kernel_on_cuda(module: str, name: str, **settings: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """By a kernel of our own for CUDA tensors; as written elsewhere.

    Args:
        module: of this package, which is only imported there, since it needs Triton.
        name: the function in it that launches the kernel, with the same arguments.
        settings: what it is given besides.
    """

    def replaced(function: Callable[P, R]) -> Callable[P, R]:
        @cache
        def kernel() -> Callable[P, R]:
            return partial(getattr(import_module(f".{module}", __package__), name), **settings)

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not has_kernels(cast("Tensor", args[0])):
                return function(*args, **kwargs)
            return kernel()(*args, **kwargs)

        return call

    return replaced


@kernel_on_cuda("norm_kernels", "rms_norm", shift=0.0, rounded=True)
def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """weight · x / √(mean(x²) + eps) over the last dimension (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    x = hidden.float()
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)).to(hidden.dtype)


@kernel_on_cuda("norm_kernels", "add_rms_norm", shift=0.0, rounded=True)
def add_rms_norm(
    hidden: Tensor, update: Tensor, weight: Tensor, eps: float, after: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum hidden + update, and its RMSNorm; with the weight `after`, of the update's own norm."""
    total = hidden + (update if after is None else rms_norm(update, after, eps))
    x = total.float()
    return total, weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)).to(hidden.dtype)


@kernel_on_cuda("norm_kernels", "rms_norm_backward", shift=0.0, rounded=True)
def rms_norm_backward(
    d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """The gradient through the norm, r·(g - x̂·mean(g·x̂)) with g = d_normed·weight and x̂ = x·r, plus
    d_residual; and the norm again, weight·x̂."""
    x = hidden.float()
    r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)  # (tokens, 1)
    g = d_normed.float() * weight.float()  # (tokens, hidden_size)
    normed = x * r
    d_hidden = r * (g - normed * (g * normed).mean(-1, keepdim=True))
    if d_residual is not None:
        d_hidden = d_residual.float() + d_hidden
    return d_hidden.to(hidden.dtype), weight * normed.to(hidden.dtype)


@kernel_on_cuda("norm_kernels", "rms_norm_gradient", shift=0.0, rounded=True)
def rms_norm_gradient(
    d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float
) -> Tensor:
    """Of `rms_norm_backward` the gradient alone."""
    return rms_norm_backward(d_normed, hidden, weight, d_residual, eps)[0]


@kernel_on_cuda("gated_mlp_kernel", "activated", gelu=False)
def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) · up (Shazeer 2020, arXiv:2002.05202); gate_up is (tokens, 2 · intermediate)."""
    gate, up = gate_up.chunk(2, -1)
    return (F.silu(gate.float()) * up.float()).to(gate_up.dtype)


@fused_on_cuda
def swiglu_backward(d_activation: Tensor, gate_up: Tensor) -> tuple[Tensor, Tensor]:
    """The activation again, (tokens, intermediate_size), and the gradient of gate_up."""
    gate, up = (half.float() for half in gate_up.chunk(2, -1))  # each (tokens, intermediate_size)
    d = d_activation.float()
    sigmoid = torch.sigmoid(gate)
    silu = gate * sigmoid
    d_gate = d * up * (sigmoid + silu * (1 - sigmoid))
    d_gate_up = torch.cat([d_gate, d * silu], -1).to(gate_up.dtype)  # (tokens, 2 · intermediate_size)
    return (silu * up).to(gate_up.dtype), d_gate_up


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Each pair (x_i, x_{i + d/2}) turned by its angle; x (tokens, heads, d), cos and sin (tokens, d/2)."""
    first, second = x.float().chunk(2, -1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)


@kernel_on_cuda("rotation_kernels", "turn")
def rotate(qkv: Tensor, cos: Tensor, sin: Tensor, rotated_heads: int) -> Tensor:
    """Rotary positions on the first `rotated_heads` heads (Su et al. 2021, arXiv:2104.09864).

    qkv (tokens, heads, head_dim); the value heads, which come last, stay.
    """
    return torch.cat([_rotated(qkv[:, :rotated_heads], cos, sin), qkv[:, rotated_heads:]], 1)


@kernel_on_cuda("rotation_kernels", "turn_back")
def rotate_backward(dq: Tensor, dk: Tensor, dv: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient of unrotated qkv: a rotation's derivative is the rotation back.

    dq (tokens, num_heads, head_dim); dk, dv (tokens, num_kv_heads, head_dim).
    """
    return torch.cat([_rotated(dq, cos, -sin), _rotated(dk, cos, -sin), dv], 1)


@kernel_on_cuda("rotation_kernels", "norm_turn", shift=0.0, rounded=True)
def norm_rotate(qkv: Tensor, cos: Tensor, sin: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm of each query and key head, then `rotate`; weight (query and key heads, head_dim)."""
    heads = weight.shape[0]
    x = qkv[:, :heads].float()
    r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    normed = weight * (x * r).to(qkv.dtype)
    return torch.cat([_rotated(normed, cos, sin), qkv[:, heads:]], 1)


@kernel_on_cuda("rotation_kernels", "norm_turn_back", shift=0.0, rounded=True)
def norm_rotate_backward(
    dq: Tensor, dk: Tensor, dv: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, weight: Tensor, eps: float
) -> Tensor:
    """The gradient of qkv as it was before `norm_rotate`."""
    heads = weight.shape[0]
    x = qkv[:, :heads].float()
    r = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    # (tokens, num_heads + num_kv_heads, head_dim)
    d_normed = torch.cat([_rotated(dq, cos, -sin), _rotated(dk, cos, -sin)], 1)
    g = d_normed.float() * weight.float()
    normed = x * r
    through = r * (g - normed * (g * normed).mean(-1, keepdim=True))
    return torch.cat([through.to(qkv.dtype), dv], 1)
