"""SwiGLU and its backward on a GPU with the LoRA's parts of their inputs, by Triton; see `fp8_mlp`."""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS, WARPS = 64, 64, 8
"""Of a tile. A wider one needs so many registers in the backward that a multiprocessor runs only one."""
LEAST_RANK = 16
"""Of a product of tensor cores."""


@triton.jit
def _product(left, right, left_stride, right_row_stride, right_column_stride, rows, columns, tokens, width,
             RANK: tl.constexpr, PADDED: tl.constexpr):  # fmt: skip
    """left (tokens, RANK) · right (RANK, width) at some rows and columns, in fp32."""
    rank = tl.arange(0, PADDED)
    a = tl.load(
        left + rows[:, None] * left_stride + rank[None, :],
        mask=(rows[:, None] < tokens) & (rank[None, :] < RANK), other=0.0,
    )  # fmt: skip
    b = tl.load(
        right + rank[:, None] * right_row_stride + columns[None, :] * right_column_stride,
        mask=(rank[:, None] < RANK) & (columns[None, :] < width), other=0.0,
    )  # fmt: skip
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _forward(gate_up, hidden, b, out, tokens, width, RANK: tl.constexpr, PADDED: tl.constexpr,
             ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < tokens) & (columns[None, :] < width)
    place = rows[:, None] * (2 * width) + columns[None, :]
    gate = tl.load(gate_up + place, mask=inside, other=0.0).to(tl.float32)
    gate += _product(hidden, b, RANK, 1, RANK, rows, columns, tokens, width, RANK, PADDED)
    up = tl.load(gate_up + place + width, mask=inside, other=0.0).to(tl.float32)
    up += _product(hidden, b + width * RANK, RANK, 1, RANK, rows, columns, tokens, width, RANK, PADDED)
    made = gate * tl.sigmoid(gate) * up
    tl.store(out + rows[:, None] * width + columns[None, :], made.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(d_activation, d_hidden, a, gate_up, hidden, b, activation, d_gate_up, tokens, width,
              A_RANK: tl.constexpr, A_PADDED: tl.constexpr, RANK: tl.constexpr, PADDED: tl.constexpr,
              ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows[:, None] < tokens) & (columns[None, :] < width)
    place = rows[:, None] * (2 * width) + columns[None, :]
    narrow = rows[:, None] * width + columns[None, :]
    gate = tl.load(gate_up + place, mask=inside, other=0.0).to(tl.float32)
    gate += _product(hidden, b, RANK, 1, RANK, rows, columns, tokens, width, RANK, PADDED)
    up = tl.load(gate_up + place + width, mask=inside, other=0.0).to(tl.float32)
    up += _product(hidden, b + width * RANK, RANK, 1, RANK, rows, columns, tokens, width, RANK, PADDED)
    d = tl.load(d_activation + narrow, mask=inside, other=0.0).to(tl.float32)
    d += _product(d_hidden, a, A_RANK, width, 1, rows, columns, tokens, width, A_RANK, A_PADDED)
    sigmoid = tl.sigmoid(gate)
    silu = gate * sigmoid
    kind = activation.dtype.element_ty
    tl.store(activation + narrow, (silu * up).to(kind), mask=inside)
    tl.store(d_gate_up + place, (d * up * (sigmoid + silu * (1 - sigmoid))).to(kind), mask=inside)
    tl.store(d_gate_up + place + width, (d * silu).to(kind), mask=inside)


def swiglu_with_lora(gate_up: Tensor, lora_hidden: Tensor, b: Tensor) -> Tensor:
    """silu(gate)·up of gate_up + lora_hidden·bᵀ, (tokens, width).

    Args:
        gate_up: (tokens, 2 · width).
        lora_hidden: (tokens, R).
        b: (2 · width, R).
    """
    tokens, width = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty(tokens, width, dtype=gate_up.dtype, device=gate_up.device)
    kernel: Any = _forward
    with torch.cuda.device(gate_up.device):
        kernel[_grid(tokens, width)](
            gate_up, lora_hidden.contiguous(), b, out, tokens, width, *_rank(b.shape[1]),
            ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS,
        )  # fmt: skip
    return out


def swiglu_with_lora_backward(
    d_activation: Tensor,
    d_down_lora_hidden: Tensor,
    a: Tensor,
    gate_up: Tensor,
    lora_hidden: Tensor,
    b: Tensor,
) -> tuple[Tensor, Tensor]:
    """The activation again, (tokens, width), and the gradient of gate and up, (tokens, 2 · width).

    Args:
        d_activation: (tokens, width), without d_down_lora_hidden·a.
        d_down_lora_hidden: (tokens, R of down).
        a: (R of down, width).
        gate_up, lora_hidden, b: as for `swiglu_with_lora`.
    """
    tokens, width = d_activation.shape
    activation, d_gate_up = torch.empty_like(d_activation), torch.empty_like(gate_up)
    kernel: Any = _backward
    with torch.cuda.device(gate_up.device):
        kernel[_grid(tokens, width)](
            d_activation, d_down_lora_hidden.contiguous(), a, gate_up, lora_hidden.contiguous(), b,
            activation, d_gate_up, tokens, width, *_rank(a.shape[0]), *_rank(b.shape[1]),
            ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS,
        )  # fmt: skip
    return activation, d_gate_up


def _grid(tokens: int, width: int) -> tuple[int, int]:
    return triton.cdiv(tokens, ROWS), triton.cdiv(width, COLUMNS)


def _rank(columns: int) -> tuple[int, int]:
    """LoRA columns, and what a product of tensor cores makes of them."""
    return columns, max(LEAST_RANK, triton.next_power_of_2(columns))
