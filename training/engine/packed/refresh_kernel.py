"""Many matrices into as many places by one Triton kernel: what each LoRA has after an optimizer step.

Places are parts of wider matrices, which torch copies to one by one: some hundred launches a step.
"""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch

NUMBERS, PROGRAMS = 1024, 32
"""That a program copies at a time, and programs of a matrix."""
KINDS = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class Copied(NamedTuple):
    """A matrix, and the place of the same shape that it is copied to; rows may lie apart in both."""

    place: Tensor
    values: Tensor  # fp32
    scale: float


@triton.jit
def _copy(table, scales, KIND: tl.constexpr, NUMBERS: tl.constexpr, PROGRAMS: tl.constexpr):
    which = tl.program_id(1)
    entry = table + which * 6
    values = tl.load(entry).to(tl.pointer_type(tl.float32))
    place = tl.load(entry + 1).to(tl.pointer_type(KIND))
    rows, columns = tl.load(entry + 2).to(tl.int32), tl.load(entry + 3).to(tl.int32)
    values_stride, place_stride = tl.load(entry + 4), tl.load(entry + 5)
    scale = tl.load(scales + which)
    for start in range(tl.program_id(0) * NUMBERS, rows * columns, PROGRAMS * NUMBERS):
        number = start + tl.arange(0, NUMBERS)
        row, column = number // columns, number % columns
        inside = row < rows
        found = tl.load(values + row * values_stride + column, mask=inside, other=0.0) * scale
        tl.store(place + row * place_stride + column, found.to(KIND), mask=inside)


class CopyTable:
    """The copies of a model, whose tensors stay where they are.

    Args:
        copied: all places on one GPU, of one dtype; the numbers of a row follow each other.
    """

    def __init__(self, copied: Sequence[Copied]) -> None:
        device = copied[0].place.device
        self._kind = KINDS[copied[0].place.dtype]
        self._kept = tuple(copied)  # the table holds addresses only
        entries = [
            (values.data_ptr(), place.data_ptr(), *values.shape, values.stride(0), place.stride(0))
            for place, values, _ in copied
        ]
        self._table = torch.tensor(entries, dtype=torch.int64, device=device)
        self._scales = torch.tensor([each.scale for each in copied], dtype=torch.float32, device=device)

    def copy(self) -> None:
        """Make all of them."""
        launch(
            _copy, (PROGRAMS, len(self._kept)), self._table.device,
            self._table, self._scales, KIND=self._kind, NUMBERS=NUMBERS, PROGRAMS=PROGRAMS,
        )  # fmt: skip
