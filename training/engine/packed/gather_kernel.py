"""Rows of a matrix in pinned host memory, read by the GPU itself: the host waits for nothing."""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch

COLUMNS = 1024
"""Of one program."""


@triton.jit
def _gather(matrix, rows, out, columns, COLUMNS: tl.constexpr):
    place = tl.program_id(0).to(tl.int64)
    row = tl.load(rows + place)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < columns
    values = tl.load(matrix + row * columns + column, mask=inside)
    tl.store(out + place * columns + column, values, mask=inside)


def gather_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """`matrix[rows]` on the device of `rows`, (len(rows), columns); `matrix` is contiguous and pinned."""
    out = torch.empty(len(rows), matrix.shape[1], dtype=matrix.dtype, device=rows.device)
    grid = len(rows), -(-matrix.shape[1] // COLUMNS)
    launch(_gather, grid, rows.device, matrix, rows, out, matrix.shape[1], COLUMNS=COLUMNS)
    return out
