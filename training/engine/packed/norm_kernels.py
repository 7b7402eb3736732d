"""RMSNorm on a GPU by Triton, a program for each row: see `norms`, whose functions they replace there."""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch

COLUMNS_OF_A_WARP = 512


@triton.jit
def unit_rows(x, size, eps):
    """1 / √(mean(x²) + eps) of each row; what lies beyond `size` is 0."""
    return tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / size + eps)


@triton.jit
def weighted(unit, weight, kind: tl.constexpr, SHIFT: tl.constexpr, ROUNDED: tl.constexpr):
    """(SHIFT + weight) · unit in fp32; ROUNDED: with unit and product rounded to `kind`, as Llama's is."""
    if ROUNDED:
        return (unit.to(kind).to(tl.float32) * weight).to(kind).to(tl.float32)
    return unit * (SHIFT + weight)


@triton.jit
def _forward(hidden, update, after, weight, total, normed, columns, hidden_stride, update_stride, eps,
             ADDED: tl.constexpr, AFTER: tl.constexpr, SHIFT: tl.constexpr, ROUNDED: tl.constexpr,
             PADDED: tl.constexpr):  # fmt: skip
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED)[None, :]
    inside = place < columns
    kind = normed.dtype.element_ty
    x = tl.load(hidden + row * hidden_stride + place, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        more = tl.load(update + row * update_stride + place, mask=inside, other=0.0).to(tl.float32)
        if AFTER:
            w_after = tl.load(after + place, mask=inside, other=0.0).to(tl.float32)
            more = weighted(more * unit_rows(more, columns, eps), w_after, kind, SHIFT, ROUNDED)
            more = more.to(kind).to(tl.float32)
        x = (x + more).to(kind).to(tl.float32)
        tl.store(total + row * columns + place, x.to(kind), mask=inside)
    w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    found = weighted(x * unit_rows(x, columns, eps), w, kind, SHIFT, ROUNDED)
    tl.store(normed + row * columns + place, found.to(kind), mask=inside)


@triton.jit
def _backward(d_normed, hidden, weight, d_residual, d_hidden, normed, columns,
              d_stride, hidden_stride, residual_stride, eps,
              RESIDUAL: tl.constexpr, AGAIN: tl.constexpr, SHIFT: tl.constexpr, ROUNDED: tl.constexpr,
              PADDED: tl.constexpr):  # fmt: skip
    row, place = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED)[None, :]
    inside = place < columns
    kind = normed.dtype.element_ty
    x = tl.load(hidden + row * hidden_stride + place, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(weight + place, mask=inside, other=0.0).to(tl.float32)
    d = tl.load(d_normed + row * d_stride + place, mask=inside, other=0.0).to(tl.float32)
    r = unit_rows(x, columns, eps)
    unit, g = x * r, d * (SHIFT + w)
    found = r * (g - unit * (tl.sum(g * unit, 1, keep_dims=True) / columns))
    if RESIDUAL:
        passed = tl.load(d_residual + row * residual_stride + place, mask=inside, other=0.0)
        found += passed.to(tl.float32)
    tl.store(d_hidden + row * columns + place, found.to(kind), mask=inside)
    if AGAIN:
        again = weighted(unit, w, kind, SHIFT, ROUNDED)
        tl.store(normed + row * columns + place, again.to(kind), mask=inside)


def rms_norm(hidden: Tensor, weight: Tensor, eps: float, *, shift: float, rounded: bool) -> Tensor:
    """As `norms.Norm.forward`, of any rows whose numbers follow each other."""
    rows, columns = _rows(hidden)
    normed = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    launch(
        _forward, (len(rows),), hidden.device,
        rows, rows, weight, weight, normed, normed, columns, rows.stride(0), 0, eps,
        ADDED=False, AFTER=False, SHIFT=shift, ROUNDED=rounded, **_width(columns),
    )  # fmt: skip
    return normed


def add_rms_norm(
    hidden: Tensor,
    update: Tensor,
    weight: Tensor,
    eps: float,
    after: Tensor | None = None,
    *,
    shift: float,
    rounded: bool,
) -> tuple[Tensor, Tensor]:
    """As `norms.Norm.add`."""
    (rows, columns), (more, _) = _rows(hidden), _rows(update)
    total, normed = (torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device) for _ in range(2))
    launch(
        _forward, (len(rows),), hidden.device,
        rows, more, weight if after is None else after, weight, total, normed,
        columns, rows.stride(0), more.stride(0), eps,
        ADDED=True, AFTER=after is not None, SHIFT=shift, ROUNDED=rounded, **_width(columns),
    )  # fmt: skip
    return total, normed


def rms_norm_backward(
    d_normed: Tensor, hidden: Tensor, weight: Tensor, d_residual: Tensor | None, eps: float, **form: Any
) -> tuple[Tensor, Tensor]:
    """As `norms.Norm.backward`; `form` is shift and rounded."""
    normed = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    return rms_norm_gradient(d_normed, hidden, weight, d_residual, eps, normed, **form), normed


def rms_norm_gradient(
    d_normed: Tensor,
    hidden: Tensor,
    weight: Tensor,
    d_residual: Tensor | None,
    eps: float,
    normed: Tensor | None = None,
    *,
    shift: float,
    rounded: bool,
) -> Tensor:
    """As `norms.Norm.gradient`; the norm again goes to `normed`."""
    (rows, columns), (d_rows, _) = _rows(hidden), _rows(d_normed)
    passed, _ = (rows, columns) if d_residual is None else _rows(d_residual)
    d_hidden = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
    launch(
        _backward, (len(rows),), hidden.device,
        d_rows, rows, weight, passed, d_hidden, d_hidden if normed is None else normed, columns,
        d_rows.stride(0), rows.stride(0), passed.stride(0), eps,
        RESIDUAL=d_residual is not None, AGAIN=normed is not None,
        SHIFT=shift, ROUNDED=rounded, **_width(columns),
    )  # fmt: skip
    return d_hidden


def _rows(tensor: Tensor) -> tuple[Tensor, int]:
    """As a matrix whose rows may lie apart, and its columns."""
    columns = tensor.shape[-1]
    matrix = tensor if tensor.dim() == 2 else tensor.reshape(-1, columns)
    return (matrix if matrix.stride(1) == 1 else matrix.contiguous()), columns


def _width(columns: int) -> dict[str, int]:
    padded = triton.next_power_of_2(columns)
    return {"PADDED": padded, "num_warps": min(16, max(1, padded // COLUMNS_OF_A_WARP))}
