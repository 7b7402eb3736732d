"""Products of rows that are sorted by expert with each expert's own matrix.

    rows:   y_g = x_g · W_gᵀ        x (rows, K), W (experts, N, K) → (rows, N)
    outer:  d_g = l_gᵀ · r_g        l (rows, M), r (rows, K)       → (experts, M, K)

where g are the rows of an expert, up to `ends[g]`. On a GPU each is one grouped GEMM, which reads `ends`
there, so that the host waits for nothing. It wants strides of a multiple of 16 bytes. The loop is the
reference, and what runs elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional as F


class ExpertProducts(Protocol):
    """See the module. `ends` is (experts,) int32."""

    def rows(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor: ...

    def outer(self, left: Tensor, right: Tensor, ends: Tensor) -> Tensor: ...


class LoopedProducts:
    """One expert after the other."""

    def rows(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        y = x.new_empty(len(x), weight.shape[1])
        for expert, rows in _groups(ends):
            torch.mm(x[rows], weight[expert].t(), out=y[rows])
        return y

    def outer(self, left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
        made = left.new_zeros(len(ends), left.shape[1], right.shape[1])
        for expert, rows in _groups(ends):
            torch.mm(left[rows].t(), right[rows], out=made[expert])
        return made


class GroupedProducts:
    """torch's grouped GEMM."""

    def rows(self, x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
        return _grouped_mm(x, weight.transpose(1, 2), ends)

    def outer(self, left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
        made = _grouped_mm(left.t(), right, ends)
        unused = ends == torch.cat([ends.new_zeros(1), ends[:-1]])  # (experts,)
        return made.masked_fill_(unused[:, None, None], 0)  # whatever a product over no rows is


def products_for(device: torch.device, dtype: torch.dtype, inputs: int, outputs: int) -> ExpertProducts:
    """Those of a device for matrices (outputs, inputs)."""
    grouped = _grouped_takes(device, dtype) and inputs % 8 == outputs % 8 == 0
    return GroupedProducts() if grouped else LoopedProducts()


def _grouped_takes(device: torch.device, dtype: torch.dtype) -> bool:
    return (
        device.type == "cuda"
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and dtype == torch.bfloat16
    )


def _grouped_mm(left: Tensor, right: Tensor, ends: Tensor) -> Tensor:
    return F.grouped_mm(left, right, offs=ends)


def _groups(ends: Tensor) -> Iterator[tuple[int, slice]]:
    """The experts that have rows, and which."""
    start = 0
    borders = cast("list[int]", ends.tolist())  # pyright: ignore[reportUnknownMemberType]
    for expert, end in enumerate(borders):
        if end > start:
            yield expert, slice(start, end)
        start = end
