"""Rows to FP8 on a GPU, by one Triton kernel that reads each number once; see `fp8` for the format."""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .fp8 import FP8, LARGEST, SMALLEST_ROW
from .gpu_kernels import launch

NUMBERS_OF_A_WARP = 1024
MOST_WARPS = 32


@triton.jit
def _quantise(
    x, values, scales,
    COLUMNS: tl.constexpr, BLOCK: tl.constexpr, LARGEST: tl.constexpr, SMALLEST_ROW: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    place = tl.arange(0, BLOCK)
    start = row.to(tl.int64) * COLUMNS
    numbers = tl.load(x + start + place, mask=place < COLUMNS, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(numbers), 0), SMALLEST_ROW) / LARGEST
    tl.store(scales + row, scale)
    tl.store(values + start + place, (numbers / scale).to(values.dtype.element_ty), mask=place < COLUMNS)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Values, (rows, columns), and scales, (rows, 1), of x (rows, columns), which is contiguous."""
    rows, columns = x.shape
    values = torch.empty(rows, columns, dtype=FP8, device=x.device)
    scales = torch.empty(rows, 1, device=x.device)
    block = triton.next_power_of_2(columns)
    launch(
        _quantise, (rows,), x.device,
        x, values, scales,
        COLUMNS=columns, BLOCK=block, LARGEST=LARGEST, SMALLEST_ROW=SMALLEST_ROW,
        num_warps=min(MOST_WARPS, max(1, block // NUMBERS_OF_A_WARP)),
    )  # fmt: skip
    return values, scales
