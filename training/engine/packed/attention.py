"""Causal attention within each segment of a packed row, forward and backward.

On CUDA: variable-length FlashAttention (Dao 2023, arXiv:2307.08691) through the operators beneath torch's
`varlen_attn`, which itself goes through autograd and a Python operator: too long for each layer of a small
model. Elsewhere, and for what those kernels do not take (fp32, old GPUs), one segment after the other:
scaled_dot_product_attention; or, as that has no soft cap (Gemma 2), scores that are computed for a group of
heads at a time, and again in the backward pass, so that none of them stay.

A sink is a score of its head that has no value: it only makes the softmax's sum larger (gpt-oss). So
FlashAttention's output is multiplied by sigmoid(logsumexp - sink), and its backward pass is given that output
and the larger logsumexp: with P = exp(scores - logsumexp) and P∘(dP - sum(dO∘O)) it is then right as it is.

    forward(q, k, v, segments, window, sinks)
        q (tokens, num_heads, head_dim); k, v (tokens, num_kv_heads, head_dim); sinks (num_heads,) or None
    backward(d_out, saved)
        → dq, dk, dv, shaped like q, k, v
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..loop.batch import Segments

Gradients = tuple[Tensor, Tensor, Tensor]
SegmentFunction = Callable[[Tensor, Tensor, Tensor, "int | None", "Tensor | None"], Tensor]
"""Attention within one segment: q, k, v as below, window and sinks to the output."""


class Attention(Protocol):
    """Attention with its backward. `window` counts positions, the token itself included; None is all."""

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        segments: Segments,
        window: int | None,
        sinks: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """The output, (tokens, num_heads, head_dim), and what backward needs."""
        ...

    def backward(self, d_out: Tensor, saved: Any) -> Gradients: ...


class DifferentiatedAttention:
    """A function of one segment, called for each, with torch's own derivative; keeps what that saves."""

    def __init__(self, function: SegmentFunction) -> None:
        self.function = function

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        segments: Segments,
        window: int | None,
        sinks: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        lengths = list(segments.lengths)
        with torch.enable_grad():
            leaves = tuple(x.detach().requires_grad_() for x in (q, k, v))
            parts = zip(*(torch.split(x, lengths) for x in leaves), strict=True)
            outs = [self.function(query, key, value, window, sinks) for query, key, value in parts]
            out = torch.cat(outs)
        return out.detach(), (out, leaves)

    def backward(self, d_out: Tensor, saved: tuple[Tensor, Gradients]) -> Gradients:
        out, leaves = saved
        dq, dk, dv = torch.autograd.grad(out, leaves, d_out)
        return dq, dk, dv


class RecomputedAttention(DifferentiatedAttention):
    """The same, with the function called again in the backward pass: only the inputs are kept."""

    def __init__(self, function: SegmentFunction) -> None:
        super().__init__(partial[Tensor](_Recomputed.apply, function))  # pyright: ignore[reportUnknownMemberType]


class _Recomputed(torch.autograd.Function):
    """What torch's `checkpoint` does, which loads its compiler first: a second of a short run."""

    @staticmethod
    def forward(ctx: Any, function: SegmentFunction, q: Tensor, k: Tensor, v: Tensor, *others: Any) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.function, ctx.others = function, others
        return function(q, k, v, *others)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        with torch.enable_grad():
            leaves = tuple(x.detach().requires_grad_() for x in ctx.saved_tensors)
            out = ctx.function(*leaves, *ctx.others)
        return None, *torch.autograd.grad(out, leaves, gradients), None, None


class FlashOperator:
    """torch's FlashAttention operator, called directly."""

    def __init__(self, scale: float | None = None) -> None:
        self.scale = scale

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        segments: Segments,
        window: int | None,
        sinks: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        left = -1 if window is None else window - 1
        cu_seqlens, max_seqlen = segments.cu_seqlens, segments.max_seqlen
        out, logsumexp, *_ = torch.ops.aten._flash_attention_forward(
            q, k, v, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, window is None, False,
            scale=self.scale, window_size_left=left, window_size_right=0,
        )  # fmt: skip
        # out: (tokens, num_heads, head_dim); logsumexp: (num_heads, tokens)
        if sinks is not None:
            out, logsumexp = with_sinks(out, logsumexp, sinks)
        return out, (q, k, v, out, logsumexp, cu_seqlens, max_seqlen, left)

    def backward(self, d_out: Tensor, saved: Any) -> Gradients:
        q, k, v, out, logsumexp, cu_seqlens, max_seqlen, left = saved
        random_state, unused = _no_dropout(q.device)
        dq, dk, dv = torch.ops.aten._flash_attention_backward(
            d_out, q, k, v, out, logsumexp, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, 0.0, left == -1,
            random_state, unused, scale=self.scale, window_size_left=left, window_size_right=0,
        )  # fmt: skip
        return dq, dk, dv


def with_sinks(out: Tensor, logsumexp: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor]:
    """Attention's output and logsumexp, fp32 (num_heads, tokens), where each head has a sink too."""
    larger = torch.logaddexp(logsumexp, sinks.float()[:, None])
    share = torch.exp(logsumexp - larger).t()[:, :, None]  # (tokens, num_heads, 1)
    return (out.float() * share).to(out.dtype), larger


@cache
def _no_dropout(device: torch.device) -> tuple[Tensor, Tensor]:
    """The arguments about dropout that the backward operator wants even without any."""
    return torch.zeros(2, dtype=torch.uint64, device=device), torch.empty(0, device=device)


def attention_for(
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    *,
    scale: float | None = None,
    cap: float | None = None,
    sinks: bool = False,
) -> Attention:
    """The fastest attention that this device has for these heads.

    Args:
        scale: of the scores; None is 1/√head_dim.
        cap: of the scores, which become cap · tanh(score / cap).
        sinks: whether heads have them.
    """
    if cap is not None or (sinks and not _flash_takes(device, dtype, head_dim)):
        return RecomputedAttention(partial(explicit, scale=scale, cap=cap))
    if _flash_takes(device, dtype, head_dim):
        return FlashOperator(scale)
    return DifferentiatedAttention(partial(segmentwise, scale=scale))


def _flash_takes(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and dtype in (torch.bfloat16, torch.float16)
        and head_dim % 8 == 0
        and head_dim <= 256
    )


def segmentwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None,
    sinks: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale · q·kᵀ)·v within one segment; scale None is 1/√head_dim. There are no sinks."""
    length, groups = len(q), q.shape[1] // k.shape[1]
    if groups > 1:
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (length, num_heads, head_dim)
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))  # (1, num_heads, length, head_dim)
    all_seen = window is None or window >= length
    mask = None if all_seen else _visible(length, window, q.device)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=all_seen, scale=scale)
    return out[0].transpose(0, 1)


def _visible(length: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys a query sees, (length, length)."""
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    return (distance >= 0) & (distance < (length if window is None else window))


def explicit(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None,
    sinks: Tensor | None = None,
    *,
    scale: float | None,
    cap: float | None = None,
) -> Tensor:
    """softmax(cap · tanh(scale · q·kᵀ / cap))·v within one segment (Gemma 2, arXiv:2408.00118)."""
    factor = q.shape[2] ** -0.5 if scale is None else scale
    heads = q.shape[1] // k.shape[1]  # queries of a key
    of_heads = [None] * k.shape[1] if sinks is None else torch.split(sinks, heads)
    visible = _visible(len(q), window, q.device)
    groups = zip(torch.split(q, heads, 1), k.unbind(1), v.unbind(1), of_heads, strict=True)
    return torch.cat([_of_group(*group, visible, factor, cap) for group in groups], 1)


def _of_group(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sinks: Tensor | None,
    visible: Tensor,
    factor: float,
    cap: float | None,
) -> Tensor:
    """Of one key head; q (length, heads, head_dim), k and v (length, head_dim), sinks (heads,)."""
    scores = torch.einsum("qhd,kd->hqk", q, k).float() * factor  # (heads, length, length)
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~visible, -torch.inf)
    if sinks is not None:
        sink = sinks.float()[:, None, None].expand(-1, scores.shape[1], 1)
        scores = torch.cat([scores, sink], -1)
    weights = scores.softmax(-1)[:, :, : k.shape[0]].to(v.dtype)
    return torch.einsum("hqk,kd->qhd", weights, v)
