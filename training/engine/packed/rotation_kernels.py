"""Rotary positions on a GPU by Triton, with the norm of each query and key head where a family has one.

They replace functions of `fused_ops` and `head_rotation`. A program takes some tokens of one head. A pair's
other dimension is read a second time, from the cache.
"""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch
from .norm_kernels import unit_rows, weighted

NUMBERS = 2048
"""Of a program."""


class HeadNorm(NamedTuple):
    """The norm of each query and key head, if there is one."""

    weight: Tensor | None = None
    eps: float = 0.0
    shift: float = 0.0
    rounded: bool = False

    @property
    def constants(self) -> dict[str, Any]:
        """What the kernels are compiled for."""
        return {"NORMED": self.weight is not None, "SHIFT": self.shift, "ROUNDED": self.rounded}


@triton.jit
def _pairs(place, HALF: tl.constexpr, INTERLEAVED: tl.constexpr):
    """Of each dimension: the other one of its pair, the pair, the sign of its sine, whether it is turned."""
    if INTERLEAVED:
        first, pair = place % 2 == 0, place // 2
        other = tl.where(first, place + 1, place - 1)
    else:
        first = place < HALF
        pair = tl.where(first, place, place - HALF)
        other = tl.where(first, place + HALF, place - HALF)
    turned = place < 2 * HALF
    return tl.where(turned, other, place), pair, tl.where(first, -1.0, 1.0), turned


@triton.jit(do_not_specialize=["tokens"])
def _turn(qkv, cos, sin, weight, out, tokens, heads, rotated, row_stride, head_stride, eps,
          SIZE: tl.constexpr, PADDED: tl.constexpr, HALF: tl.constexpr, INTERLEAVED: tl.constexpr,
          NORMED: tl.constexpr, SHIFT: tl.constexpr, ROUNDED: tl.constexpr,
          ROWS: tl.constexpr):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    head, place = tl.program_id(1), tl.arange(0, PADDED)[None, :]
    inside = (rows < tokens) & (place < SIZE)
    kind = out.dtype.element_ty
    source = qkv + rows * row_stride + head * head_stride
    x = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    if head < rotated:
        other, pair, sign, turned = _pairs(place, HALF, INTERLEAVED)
        y = tl.load(source + other, mask=inside, other=0.0).to(tl.float32)
        if NORMED:
            r = unit_rows(x, SIZE, eps)
            w = tl.load(weight + head * SIZE + place, mask=place < SIZE, other=0.0).to(tl.float32)
            w_other = tl.load(weight + head * SIZE + other, mask=place < SIZE, other=0.0).to(tl.float32)
            x = weighted(x * r, w, kind, SHIFT, ROUNDED)
            y = weighted(y * r, w_other, kind, SHIFT, ROUNDED)
        angles = rows * HALF + pair
        c = tl.load(cos + angles, mask=inside & turned, other=1.0)
        s = tl.load(sin + angles, mask=inside & turned, other=0.0)
        x = x * c + sign * y * s
    tl.store(out + (rows * heads + head) * SIZE + place, x.to(kind), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def _turn_back(dq, dk, dv, qkv, cos, sin, weight, out, tokens, heads, queries, keys,
               dq_row, dq_head, dk_row, dk_head, dv_row, dv_head, row_stride, head_stride, eps,
               SIZE: tl.constexpr, PADDED: tl.constexpr, HALF: tl.constexpr, INTERLEAVED: tl.constexpr,
               NORMED: tl.constexpr, SHIFT: tl.constexpr, ROUNDED: tl.constexpr,
          ROWS: tl.constexpr):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    head, place = tl.program_id(1), tl.arange(0, PADDED)[None, :]
    inside = (rows < tokens) & (place < SIZE)
    kind = out.dtype.element_ty
    if head < queries:
        source = dq + rows * dq_row + head * dq_head
    elif head < queries + keys:
        source = dk + rows * dk_row + (head - queries) * dk_head
    else:
        source = dv + rows * dv_row + (head - queries - keys) * dv_head
    d = tl.load(source + place, mask=inside, other=0.0).to(tl.float32)
    if head < queries + keys:
        other, pair, sign, turned = _pairs(place, HALF, INTERLEAVED)
        d_other = tl.load(source + other, mask=inside, other=0.0).to(tl.float32)
        angles = rows * HALF + pair
        c = tl.load(cos + angles, mask=inside & turned, other=1.0)
        s = tl.load(sin + angles, mask=inside & turned, other=0.0)
        d = d * c - sign * d_other * s
        if NORMED:
            x = tl.load(qkv + rows * row_stride + head * head_stride + place, mask=inside, other=0.0)
            w = tl.load(weight + head * SIZE + place, mask=place < SIZE, other=0.0).to(tl.float32)
            x = x.to(tl.float32)
            r = unit_rows(x, SIZE, eps)
            if ROUNDED:
                d = d.to(kind).to(tl.float32)
            unit, g = x * r, d * (SHIFT + w)
            d = r * (g - unit * (tl.sum(g * unit, 1, keep_dims=True) / SIZE))
    tl.store(out + (rows * heads + head) * SIZE + place, d.to(kind), mask=inside)


def turn(qkv: Tensor, cos: Tensor, sin: Tensor, rotated_heads: int, *, interleaved: bool = False) -> Tensor:
    """As `fused_ops.rotate`; pairs are (x_2i, x_2i+1) if interleaved."""
    return _turned(qkv, cos, sin, rotated_heads, HeadNorm(), interleaved)


def norm_turn(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    weight: Tensor,
    eps: float,
    *,
    shift: float,
    rounded: bool,
    interleaved: bool = False,
) -> Tensor:
    """As `fused_ops.norm_rotate`, with a norm as `norms` has them."""
    norm = HeadNorm(weight, eps, shift, rounded)
    return _turned(qkv, cos, sin, len(weight), norm, interleaved)


def turn_back(
    dq: Tensor, dk: Tensor, dv: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False
) -> Tensor:
    """As `fused_ops.rotate_backward`."""
    return _turned_back((dq, dk, dv), None, cos, sin, HeadNorm(), interleaved)


def norm_turn_back(
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    weight: Tensor,
    eps: float,
    *,
    shift: float,
    rounded: bool,
    interleaved: bool = False,
) -> Tensor:
    """As `fused_ops.norm_rotate_backward`."""
    norm = HeadNorm(weight, eps, shift, rounded)
    return _turned_back((dq, dk, dv), qkv, cos, sin, norm, interleaved)


def _turned(qkv: Tensor, cos: Tensor, sin: Tensor, rotated: int, norm: HeadNorm, interleaved: bool) -> Tensor:
    qkv = _dimensions_together(qkv)
    tokens, heads, size = qkv.shape
    out = torch.empty(tokens, heads, size, dtype=qkv.dtype, device=qkv.device)
    tile = _tile(size, cos, interleaved)
    launch(
        _turn, (triton.cdiv(tokens, tile["ROWS"]), heads), qkv.device,
        qkv, cos, sin, qkv if norm.weight is None else norm.weight, out, tokens, heads, rotated,
        qkv.stride(0), qkv.stride(1), norm.eps, **norm.constants, **tile,
    )  # fmt: skip
    return out


def _turned_back(
    d: tuple[Tensor, Tensor, Tensor],
    qkv: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    norm: HeadNorm,
    interleaved: bool,
) -> Tensor:
    dq, dk, dv = map(_dimensions_together, d)
    before = dq if qkv is None else _dimensions_together(qkv)
    tokens, size = len(dq), dq.shape[-1]
    heads = sum(part.shape[1] for part in (dq, dk, dv))
    out = torch.empty(tokens, heads, size, dtype=dq.dtype, device=dq.device)
    strides = [stride for part in (dq, dk, dv, before) for stride in part.stride()[:2]]
    tile = _tile(size, cos, interleaved)
    launch(
        _turn_back, (triton.cdiv(tokens, tile["ROWS"]), heads), dq.device,
        dq, dk, dv, before, cos, sin, dq if norm.weight is None else norm.weight, out, tokens, heads,
        dq.shape[1], dk.shape[1], *strides, norm.eps, **norm.constants, **tile,
    )  # fmt: skip
    return out


def _dimensions_together(tensor: Tensor) -> Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _tile(size: int, cos: Tensor, interleaved: bool) -> dict[str, Any]:
    padded = triton.next_power_of_2(size)
    rows = max(1, NUMBERS // padded)
    return {
        "SIZE": size, "PADDED": padded, "HALF": cos.shape[1], "INTERLEAVED": interleaved, "ROWS": rows,
    }  # fmt: skip
