"""A gated activation on a GPU with what its LoRA adds or needs, by Triton; see `fused_mlp`.

The backward goes down the tokens with a stripe of the MLP's columns. While the activation and the gradients
of gate and up are in registers they meet the narrow matrices that LoRA gradients are made with, so none of
them is read again, and the activation is not even written. Parts of the tokens are summed apart, in fp32, and
then always in the same order.
"""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...planning.memory import PARTED_COLUMNS
from .gpu_kernels import launch

TILE = {"ROWS": 64, "COLUMNS": 64, "num_warps": 8}
"""Of the forward."""
TILE_ALONE = {"ROWS": 4, "COLUMNS": 1024, "num_warps": 8}
"""Likewise without a LoRA: as much of a row as can be."""
STRIPE = {"ROWS": 16, "COLUMNS": 128, "num_warps": 4, "num_stages": 3}
"""Of the backward, whose rows are taken one tile after the other; the fastest of 70 on an H100."""
STRIPE_THAT_ADDS = {"ROWS": 64, "COLUMNS": 64, "num_warps": 4, "num_stages": 2}
"""Likewise where it adds to what it reads."""
LEAST_RANK = 16
"""Of a product of tensor cores."""


class GatedLora(NamedTuple):
    """The LoRA of gate and up, whose rank is also that of down's."""

    rank: int
    up_column: int
    """Where that of up begins in the columns of both: at `rank`, or at 0 if they are one module."""
    scale: float
    gelu: bool
    """Whether gate goes through GELU in its tanh form instead of SiLU."""

    @property
    def constants(self) -> dict[str, Any]:
        """What the kernels are compiled for."""
        padded = max(LEAST_RANK, triton.next_power_of_2(self.rank))
        return {"RANK": self.rank, "PADDED": padded, "UP": self.up_column, "GELU": self.gelu}


class Gradients(NamedTuple):
    """Where the LoRA's gradients go."""

    a_of_down: Tensor  # (r, width)
    b_of_gate: Tensor  # (width, r)
    b_of_up: Tensor  # (width, r)


@triton.jit
def _narrow(matrix, stride, rows, tokens, first, RANK: tl.constexpr, PADDED: tl.constexpr):
    """RANK columns from `first` on, of some rows of (tokens, stride)."""
    rank = tl.arange(0, PADDED)
    return tl.load(
        matrix + rows[:, None] * stride + first + rank[None, :],
        mask=(rows[:, None] < tokens) & (rank[None, :] < RANK), other=0.0,
    )  # fmt: skip


@triton.jit
def _wide(matrix, rank_stride, column_stride, columns, width, RANK: tl.constexpr, PADDED: tl.constexpr):
    """(RANK, some of `width` columns)."""
    rank = tl.arange(0, PADDED)
    return tl.load(
        matrix + rank[:, None] * rank_stride + columns[None, :] * column_stride,
        mask=(rank[:, None] < RANK) & (columns[None, :] < width), other=0.0,
    )  # fmt: skip


@triton.jit
def _dot(left, right):
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _activated(gate, GELU: tl.constexpr):
    """The activation of gate, and its derivative; see `gated_activations`."""
    if GELU:
        slope = 0.7978845608028654  # √(2/π)
        t = 2 * tl.sigmoid(2 * slope * (gate + 0.044715 * gate * gate * gate)) - 1
        half = 0.5 * (1 + t)
        activated = gate * half
        derivative = half + 0.5 * gate * (1 - t * t) * slope * (1 + 0.134145 * gate * gate)
    else:
        sigmoid = tl.sigmoid(gate)
        activated = gate * sigmoid
        derivative = sigmoid + activated * (1 - sigmoid)
    return activated, derivative


@triton.jit(do_not_specialize=["tokens"])
def _forward(gate_up, hidden, b, out, tokens, width, gate_up_stride, stride,
             RANK: tl.constexpr, PADDED: tl.constexpr, UP: tl.constexpr, GELU: tl.constexpr,
             ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < tokens) & (columns[None, :] < width)
    place = rows[:, None] * gate_up_stride + columns[None, :]
    gate = tl.load(gate_up + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + place + width, mask=inside, other=0.0).to(tl.float32)
    if ADDED:
        b_of_gate = _wide(b, 1, stride, columns, width, RANK, PADDED)
        b_of_up = _wide(b + width * stride + UP, 1, stride, columns, width, RANK, PADDED)
        gate += _dot(_narrow(hidden, stride, rows, tokens, 0, RANK, PADDED), b_of_gate)
        up += _dot(_narrow(hidden, stride, rows, tokens, UP, RANK, PADDED), b_of_up)
    activated, _ = _activated(gate, GELU)
    made = (activated * up).to(out.dtype.element_ty)
    tl.store(out + rows[:, None] * width + columns[None, :], made, mask=inside)


@triton.jit(do_not_specialize=["tokens", "part_tokens"])
def _backward(d_activation, gate_up, d_hidden, hidden, a, b, d_gate_up, sums,
              tokens, width, part_tokens, d_activation_stride, gate_up_stride, d_stride, stride,
              RANK: tl.constexpr, PADDED: tl.constexpr, UP: tl.constexpr, GELU: tl.constexpr,
              ADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    kind = d_gate_up.dtype.element_ty
    if ADDED:
        a_of_down = _wide(a, width, 1, columns, width, RANK, PADDED)
        b_of_gate = _wide(b, 1, stride, columns, width, RANK, PADDED)
        b_of_up = _wide(b + width * stride + UP, 1, stride, columns, width, RANK, PADDED)
    d_a = tl.zeros((PADDED, COLUMNS), tl.float32)
    d_b_of_gate = tl.zeros((PADDED, COLUMNS), tl.float32)
    d_b_of_up = tl.zeros((PADDED, COLUMNS), tl.float32)
    for start in range(0, part_tokens, ROWS):
        rows = (part * part_tokens + start + tl.arange(0, ROWS)).to(tl.int64)
        inside = (rows[:, None] < tokens) & (columns[None, :] < width)
        read = rows[:, None] * gate_up_stride + columns[None, :]
        gate = tl.load(gate_up + read, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(gate_up + read + width, mask=inside, other=0.0).to(tl.float32)
        of_d = rows[:, None] * d_activation_stride + columns[None, :]
        d = tl.load(d_activation + of_d, mask=inside, other=0.0).to(tl.float32)
        of_down = _narrow(d_hidden, d_stride, rows, tokens, 0, RANK, PADDED)
        of_gate = _narrow(hidden, stride, rows, tokens, 0, RANK, PADDED)
        of_up = _narrow(hidden, stride, rows, tokens, UP, RANK, PADDED)
        if ADDED:
            gate += _dot(of_gate, b_of_gate)
            up += _dot(of_up, b_of_up)
            d += _dot(of_down, a_of_down)
        activated, derivative = _activated(gate, GELU)
        d_gate = (d * up * derivative).to(kind)
        d_up = (d * activated).to(kind)
        place = rows[:, None] * (2 * width) + columns[None, :]
        tl.store(d_gate_up + place, d_gate, mask=inside)
        tl.store(d_gate_up + place + width, d_up, mask=inside)
        d_a += _dot(tl.trans(of_down), (activated * up).to(kind))
        d_b_of_gate += _dot(tl.trans(of_gate), d_gate)
        d_b_of_up += _dot(tl.trans(of_up), d_up)
    rank = tl.arange(0, PADDED)
    there = (rank[:, None] < RANK) & (columns[None, :] < width)
    out = sums + (part * 3 * RANK + rank[:, None]) * width + columns[None, :]
    tl.store(out, d_a, mask=there)
    tl.store(out + RANK * width, d_b_of_gate, mask=there)
    tl.store(out + 2 * RANK * width, d_b_of_up, mask=there)


@triton.jit(do_not_specialize=["parts"])  # or it is compiled anew for some numbers of tokens
def _add_up(sums, d_a, d_b_of_gate, d_b_of_up, width, parts, scale,
            RANK: tl.constexpr, PADDED: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    columns, rank = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS), tl.arange(0, PADDED)
    which = tl.program_id(1)
    there = (rank[:, None] < RANK) & (columns[None, :] < width)
    place = (which * RANK + rank[:, None]) * width + columns[None, :]
    total = tl.zeros((PADDED, COLUMNS), tl.float32)
    for part in range(parts):
        total += tl.load(sums + part * 3 * RANK * width + place, mask=there, other=0.0)
    kind = d_a.dtype.element_ty
    if which == 0:
        tl.store(d_a + rank[:, None] * width + columns[None, :], total.to(kind), mask=there)
    else:
        out = d_b_of_gate if which == 1 else d_b_of_up
        tl.store(out + columns[None, :] * RANK + rank[:, None], (total * scale).to(kind), mask=there)


def gated_forward(gate_up: Tensor, lora_hidden: Tensor, b: Tensor, lora: GatedLora) -> Tensor:
    """activation(gate)·up of gate_up + lora_hidden·bᵀ, (tokens, width).

    Args:
        gate_up: (tokens, 2 · width).
        lora_hidden: (tokens, R).
        b: (2 · width, R).
    """
    tokens, width = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty(tokens, width, dtype=gate_up.dtype, device=gate_up.device)
    grid = triton.cdiv(tokens, TILE["ROWS"]), triton.cdiv(width, TILE["COLUMNS"])
    launch(
        _forward, grid, gate_up.device,
        gate_up, lora_hidden.contiguous(), b.contiguous(), out,
        tokens, width, gate_up.stride(0), b.shape[1], **lora.constants, ADDED=True, **TILE,
    )  # fmt: skip
    return out


def activated(gate_up: Tensor, *, gelu: bool) -> Tensor:
    """activation(gate)·up, (tokens, width), without a LoRA."""
    tokens, width = len(gate_up), gate_up.shape[1] // 2
    gate_up = gate_up if gate_up.stride(1) == 1 else gate_up.contiguous()
    out = torch.empty(tokens, width, dtype=gate_up.dtype, device=gate_up.device)
    grid = triton.cdiv(tokens, TILE_ALONE["ROWS"]), triton.cdiv(width, TILE_ALONE["COLUMNS"])
    launch(
        _forward, grid, gate_up.device,
        gate_up, gate_up, gate_up, out, tokens, width, gate_up.stride(0), 0,
        RANK=0, PADDED=LEAST_RANK, UP=0, GELU=gelu, ADDED=False, **TILE_ALONE,
    )  # fmt: skip
    return out


def gated_backward(
    d_activation: Tensor,
    gate_up: Tensor,
    d_lora_hidden: Tensor,
    lora_hidden: Tensor,
    lora: GatedLora,
    into: Gradients,
    added: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The gradient of gate and up, (tokens, 2 · width); those of the LoRA are written.

    Rows of `d_activation` and `gate_up` may lie apart, as parts of a wider product do.

    Args:
        d_activation: (tokens, width).
        gate_up: (tokens, 2 · width).
        d_lora_hidden: of down, (tokens, R of down).
        lora_hidden: of gate and up, (tokens, R).
        into: contiguous tensors.
        added: B of gate and up, (2 · width, R), and A of down, (R of down, width), where lora_hidden·Bᵀ and
            d_lora_hidden·A have yet to be added.
    """
    tokens, width = d_activation.shape
    stripe = STRIPE if added is None else STRIPE_THAT_ADDS
    stripes, tiles = triton.cdiv(width, stripe["COLUMNS"]), triton.cdiv(tokens, stripe["ROWS"])
    part_tokens = stripe["ROWS"] * triton.cdiv(tiles, triton.cdiv(PARTED_COLUMNS, width))
    parts = triton.cdiv(tokens, part_tokens)
    d_gate_up = torch.empty(gate_up.shape, dtype=gate_up.dtype, device=gate_up.device)
    sums = torch.empty(parts, 3, lora.rank, width, dtype=torch.float32, device=gate_up.device)
    of_down, of_both = d_lora_hidden.contiguous(), lora_hidden.contiguous()
    a, b = (of_down, of_both) if added is None else (added[1].contiguous(), added[0].contiguous())
    launch(
        _backward, (stripes, parts), gate_up.device,
        d_activation, gate_up, of_down, of_both, a, b, d_gate_up, sums,
        tokens, width, part_tokens,
        d_activation.stride(0), gate_up.stride(0), of_down.shape[1], of_both.shape[1],
        **lora.constants, ADDED=added is not None, **stripe,
    )  # fmt: skip
    launch(
        _add_up, (stripes, 3), gate_up.device,
        sums, *into, width, parts, lora.scale,
        RANK=lora.rank, PADDED=lora.constants["PADDED"], COLUMNS=stripe["COLUMNS"],
    )  # fmt: skip
    return d_gate_up
