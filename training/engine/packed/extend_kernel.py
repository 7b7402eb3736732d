"""Rows extended by their product with a narrow matrix on a GPU, by Triton; see `extended_rows`.

A program goes along some rows, which it multiplies while it copies them: torch reads them once more for that.
"""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch

TILE = {"ROWS": 64, "COLUMNS": 256, "num_warps": 8, "num_stages": 4}
"""The fastest of 54 on an H200."""
TILE_OF_MANY = {"ROWS": 64, "COLUMNS": 128, "num_warps": 4, "num_stages": 4}
"""Likewise for a matrix of more than `FEW` columns."""
FEW = 32
LEAST_COLUMNS = 16
"""Of a product of tensor cores."""


@triton.jit(do_not_specialize=["tokens"])
def _extend(x, matrix, extended, product, tokens, width, x_stride, matrix_stride, column_stride,
            NARROW: tl.constexpr, PADDED: tl.constexpr,
            ROWS: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    rows = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    narrow = tl.arange(0, PADDED)[None, :]
    kind = extended.dtype.element_ty
    total = tl.zeros((ROWS, PADDED), tl.float32)
    for first in range(0, width, COLUMNS):
        columns = first + tl.arange(0, COLUMNS)
        inside = (rows < tokens) & (columns[None, :] < width)
        many = tl.load(x + rows * x_stride + columns[None, :], mask=inside, other=0.0)
        tl.store(extended + rows * (width + NARROW) + columns[None, :], many, mask=inside)
        few = tl.load(matrix + columns[:, None] * matrix_stride + narrow * column_stride,
                      mask=(columns[:, None] < width) & (narrow < NARROW), other=0.0)  # fmt: skip
        total += tl.dot(many, few, input_precision="ieee")
    made, there = total.to(kind), (rows < tokens) & (narrow < NARROW)
    tl.store(extended + rows * (width + NARROW) + width + narrow, made, mask=there)
    tl.store(product + rows * NARROW + narrow, made, mask=there)


def extend(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """As `extended_rows.extended_by`; the numbers of `matrix` may lie in any order."""
    x = x if x.stride(1) == 1 else x.contiguous()
    (tokens, width), columns = x.shape, matrix.shape[1]
    extended, product = x.new_empty(tokens, width + columns), x.new_empty(tokens, columns)
    tile = TILE if columns <= FEW else TILE_OF_MANY
    launch(
        _extend, (triton.cdiv(tokens, tile["ROWS"]),), x.device,
        x, matrix, extended, product, tokens, width, x.stride(0), *matrix.stride(),
        NARROW=columns, PADDED=max(LEAST_COLUMNS, triton.next_power_of_2(columns)), **tile,
    )  # fmt: skip
    return extended, product
