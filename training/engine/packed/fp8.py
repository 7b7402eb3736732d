"""Frozen weights in FP8 (e4m3), and their products with activations that are quantised row by row.

Each row of a matrix is divided by scale = its largest magnitude / 448, so that e4m3 (4 bits of exponent, 3 of
mantissa; Micikevicius et al. 2022, arXiv:2209.05433) holds it with a relative error of at most 1/16. Of

    y = x·Wᵀ     rows of x by rows of W
    dx = dy·W    rows of dy by columns of W

each scale belongs to one row of a product's operand, so it is taken out of the sum. Tensor cores multiply
8-bit numbers only along both operands' rows, so W is kept twice, by its rows and by its columns: 2 bytes of a
weight, as in bf16. To turn W at each use instead would halve them, and move as many bytes as W has for each
micro-batch.

On a GPU activations are quantised by one kernel, and `torch._scaled_mm` multiplies: its second operand is a
transposed view, its inner and last size are multiples of 16, and its scales are (rows, 1) and (1, rows) in
fp32. Elsewhere the same numbers are multiplied in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gpu_kernels import has_kernels

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""That e4m3 holds."""
SMALLEST_ROW = 1e-30
"""Rows of smaller numbers are divided as if this were their largest: a row of zeros stays one."""


@dataclass(frozen=True)
class Fp8Matrix:
    """values · scales: a matrix, (rows, columns), quantised row by row."""

    values: Tensor  # (rows, columns), e4m3
    scales: Tensor  # (rows, 1), fp32

    @classmethod
    def empty(cls, rows: int, columns: int, device: torch.device) -> Fp8Matrix:
        values = torch.empty(rows, columns, dtype=FP8, device=device)
        return cls(values, torch.empty(rows, 1, device=device))

    def take(self, matrix: Tensor) -> None:
        """Quantise a matrix, (rows, columns), into this one."""
        made = quantised(matrix)
        self.values.copy_(made.values)
        self.scales.copy_(made.scales)

    def rows(self, rows: slice) -> Fp8Matrix:
        """Some of its rows, as a view."""
        return Fp8Matrix(self.values[rows], self.scales[rows])

    def dequantised(self) -> Tensor:
        """The matrix, (rows, columns), in fp32."""
        return self.values.float() * self.scales


@dataclass(frozen=True)
class Fp8Weight:
    """W, (N, K), as both of its products need it."""

    by_rows: Fp8Matrix  # (N, K)
    by_columns: Fp8Matrix  # (K, N)

    @classmethod
    def empty(cls, rows: int, columns: int, device: torch.device) -> Fp8Weight:
        return cls(Fp8Matrix.empty(rows, columns, device), Fp8Matrix.empty(columns, rows, device))

    def take(self, weight: Tensor) -> None:
        """Quantise W, (N, K)."""
        self.by_rows.take(weight)
        self.by_columns.take(weight.t())


def quantised(matrix: Tensor) -> Fp8Matrix:
    """A matrix, (rows, columns), quantised row by row."""
    if has_kernels(matrix):
        from .fp8_kernel import quantise_rows

        return Fp8Matrix(*quantise_rows(matrix.contiguous()))
    numbers = matrix.float()
    scales = numbers.abs().amax(1, keepdim=True).clamp(min=SMALLEST_ROW) / LARGEST  # (rows, 1)
    return Fp8Matrix((numbers / scales).to(FP8), scales)


def product(x: Tensor, weight: Fp8Matrix, bias: Tensor | None = None) -> Tensor:
    """x·weightᵀ + bias in the type of x, (tokens, rows), both operands in FP8.

    Args:
        x: (tokens, columns), which is quantised.
        weight: (rows, columns), both multiples of 16 on a GPU.
        bias: (rows,).
    """
    rounded = quantised(x)
    if not x.is_cuda:
        made = torch.nn.functional.linear(rounded.dequantised(), weight.dequantised())
        return (made if bias is None else made + bias).to(x.dtype)
    return torch._scaled_mm(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        rounded.values,
        weight.values.t(),
        scale_a=rounded.scales,
        scale_b=weight.scales.t(),
        bias=bias,
        out_dtype=x.dtype,
        use_fast_accum=True,
    )
