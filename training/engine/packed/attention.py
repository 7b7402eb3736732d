"""Causal attention within each segment of a packed row, forward and backward.

On CUDA: variable-length FlashAttention (Dao 2023, arXiv:2307.08691) through the operators beneath torch's
`varlen_attn`, which itself goes through autograd and a Python operator: too long for each layer of a small
model. Elsewhere, and for what those kernels do not take (fp32, old GPUs): scaled_dot_product_attention, one
segment after the other.

    forward(q, k, v, segments, window)  q (tokens, num_heads, head_dim); k, v (tokens, num_kv_heads, head_dim)
    backward(d_out, saved)              → dq, dk, dv, shaped like q, k, v
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..loop.batch import Segments

Gradients = tuple[Tensor, Tensor, Tensor]
AttentionFunction = Callable[[Tensor, Tensor, Tensor, Segments, "int | None"], Tensor]


class Attention(Protocol):
    """Attention with its backward. `window` counts positions, the token itself included; None is all."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int | None
    ) -> tuple[Tensor, Any]:
        """The output, (tokens, num_heads, head_dim), and what backward needs."""
        ...

    def backward(self, d_out: Tensor, saved: Any) -> Gradients: ...


class DifferentiatedAttention:
    """Any attention function with torch's own derivative; saves what that saves."""

    def __init__(self, function: AttentionFunction) -> None:
        self.function = function

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int | None
    ) -> tuple[Tensor, Any]:
        with torch.enable_grad():
            q, k, v = (x.detach().requires_grad_() for x in (q, k, v))
            out = self.function(q, k, v, segments, window)
        return out.detach(), (out, (q, k, v))

    def backward(self, d_out: Tensor, saved: tuple[Tensor, Gradients]) -> Gradients:
        out, leaves = saved
        dq, dk, dv = torch.autograd.grad(out, leaves, d_out)
        return dq, dk, dv


class FlashOperator:
    """torch's FlashAttention operator, called directly."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int | None
    ) -> tuple[Tensor, Any]:
        left = -1 if window is None else window - 1
        cu_seqlens, max_seqlen = segments.cu_seqlens, segments.max_seqlen
        out, logsumexp, *_ = torch.ops.aten._flash_attention_forward(
            q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, window is None, False,
            window_size_left=left, window_size_right=0,
        )  # fmt: skip
        # out: (tokens, num_heads, head_dim); logsumexp: (num_heads, tokens)
        return out, (q, k, v, out, logsumexp, cu_seqlens, max_seqlen, left)

    def backward(self, d_out: Tensor, saved: Any) -> Gradients:
        q, k, v, out, logsumexp, cu_seqlens, max_seqlen, left = saved
        random_state, unused = _no_dropout(q.device)
        dq, dk, dv = torch.ops.aten._flash_attention_backward(
            d_out, q, k, v, out, logsumexp, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, left == -1,
            random_state, unused, window_size_left=left, window_size_right=0,
        )  # fmt: skip
        return dq, dk, dv


@cache
def _no_dropout(device: torch.device) -> tuple[Tensor, Tensor]:
    """The arguments about dropout that the backward operator wants even without any."""
    return torch.zeros(2, dtype=torch.uint64, device=device), torch.empty(0, device=device)


def attention_for(device: torch.device, dtype: torch.dtype, head_dim: int) -> Attention:
    """The fastest attention that this device has for these heads."""
    flash = _flash_takes(device, dtype, head_dim)
    return FlashOperator() if flash else DifferentiatedAttention(segmentwise)


def _flash_takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= 256
    )


def segmentwise(q: Tensor, k: Tensor, v: Tensor, segments: Segments, window: int | None) -> Tensor:
    """softmax(q·kᵀ / √head_dim)·v for each segment on its own."""
    groups = q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (tokens, num_heads, head_dim)
    lengths = list(segments.lengths)
    # Each (num_heads, length, head_dim)
    segmented = zip(*(torch.split(x.transpose(0, 1), lengths, 1) for x in (q, k, v)), strict=True)
    outs = [_causal(query, key, value, window) for query, key, value in segmented]
    return torch.cat(outs, 1).transpose(0, 1)


def _causal(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """One segment; all are (num_heads, length, head_dim)."""
    q, k, v = q[None], k[None], v[None]
    length = q.shape[2]
    if window is None or window >= length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]
    positions = torch.arange(length, device=q.device)
    distance = positions[:, None] - positions[None, :]  # (length, length)
    mask = (distance >= 0) & (distance < window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[0]
