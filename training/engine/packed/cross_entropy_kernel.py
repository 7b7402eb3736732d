"""The cross-entropy of rows of logits, and its gradient, on a GPU by one Triton kernel.

See `fused_cross_entropy`, whose functions it replaces there. A program goes along its row twice: for the
logarithm of the sum, which grows with the largest logit so far (Milakov & Gimelshein 2018, arXiv:1805.02867),
and for the gradient.
"""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch

TILE = {"COLUMNS": 4096, "num_warps": 8}


@triton.jit
def _capped(z, cap, CAPPED: tl.constexpr):
    z = z.to(tl.float32)
    if CAPPED:
        z = cap * (2 * tl.sigmoid(2 * z / cap) - 1)  # cap · tanh(z / cap)
    return z


@triton.jit
def _cross_entropy(logits, targets, weight, losses, gradient, columns, stride, cap,
                   CAPPED: tl.constexpr, GRADIENT: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    source, target = logits + row * stride, tl.load(targets + row)
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.zeros((), tl.float32)
    for start in range(0, columns, COLUMNS):
        place = start + tl.arange(0, COLUMNS)
        z = _capped(tl.load(source + place, mask=place < columns, other=0.0), cap, CAPPED)
        z = tl.where(place < columns, z, float("-inf"))
        larger = tl.maximum(largest, tl.max(z, 0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(z - larger), 0)
        largest = larger
    logsumexp = largest + tl.log(total)
    tl.store(losses + row, logsumexp - _capped(tl.load(source + target), cap, CAPPED))
    if GRADIENT:
        scale = tl.load(weight).to(tl.float32)
        for start in range(0, columns, COLUMNS):
            place = start + tl.arange(0, COLUMNS)
            z = _capped(tl.load(source + place, mask=place < columns, other=0.0), cap, CAPPED)
            d = (tl.exp(z - logsumexp) - (place == target).to(tl.float32)) * scale
            if CAPPED:
                d *= 1 - (z / cap) * (z / cap)
            made = d.to(gradient.dtype.element_ty)
            tl.store(gradient + row * columns + place, made, mask=place < columns)


def loss_and_gradient(
    logits: Tensor, targets: Tensor, weight: Tensor, cap: float | None
) -> tuple[Tensor, Tensor]:
    """Weighted sum of the rows' losses, and its gradient, (rows, vocab_size) in the logits' dtype."""
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    losses = _launched(logits, targets, weight, cap, gradient)
    return losses.sum() * weight, gradient


def losses(logits: Tensor, targets: Tensor, cap: float | None) -> Tensor:
    """The loss of each row, (rows,) in fp32."""
    return _launched(logits, targets, None, cap, None)


def _launched(
    logits: Tensor, targets: Tensor, weight: Tensor | None, cap: float | None, gradient: Tensor | None
) -> Tensor:
    found = torch.empty(len(logits), dtype=torch.float32, device=logits.device)
    launch(
        _cross_entropy, (len(logits),), logits.device,
        logits, targets, found if weight is None else weight, found,
        found if gradient is None else gradient, logits.shape[1], logits.stride(0), cap or 0.0,
        CAPPED=cap is not None, GRADIENT=gradient is not None, **TILE,
    )  # fmt: skip
    return found
